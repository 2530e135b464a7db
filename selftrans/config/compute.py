"""Which runs are compared by what they cost."""

from selftrans.config.names import Name, RowName, RowNames
from selftrans.config.records import Record


class Compute(Record):
    """config/compute.yaml: a vanilla row, and rows of the same model with a method, sampled the same way."""

    vanilla: RowName
    methods: RowNames
    preset: Name

    @property
    def rows(self) -> tuple[RowName, ...]:
        """All of them, the vanilla one first."""
        return (self.vanilla, *self.methods)
