"""Which client owns which row: splits by label, by size and by nature."""
