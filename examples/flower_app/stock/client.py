"""An ordinary ClientApp."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.nn import functional as F

from stock.task import load_data, make_net

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One epoch of SGD."""
    net = make_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = load_data(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    optimizer = torch.optim.SGD(net.parameters(), lr=float(context.run_config["lr"]))
    for start in range(0, len(x), 10):
        optimizer.zero_grad()
        F.cross_entropy(net(x[start : start + 10]), y[start : start + 10]).backward()
        optimizer.step()
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": len(x)})}),
                   reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Accuracy on the node's own data."""
    net = make_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = load_data(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    with torch.no_grad():
        accuracy = (net(x).argmax(1) == y).float().mean().item()
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": len(x), "accuracy": accuracy})}), reply_to=message)
