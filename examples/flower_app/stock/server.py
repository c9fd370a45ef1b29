"""An ordinary ServerApp with Flower's own strategies."""

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg

from stock.task import make_net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the strategy that the run config names, and leaves the final arrays in the context."""
    strategy = FedAdam(eta=0.01) if context.run_config["strategy"] == "fedadam" else FedAvg()
    torch.manual_seed(0)
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(make_net().state_dict()),
                            num_rounds=int(context.run_config["num-server-rounds"]))
    context.state["arrays"] = result.arrays
