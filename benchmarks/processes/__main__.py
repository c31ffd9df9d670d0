"""What a training step costs over several processes: a model of it, its check on this machine, and a table up to 64.

Plain and hypergradient steps of the noise study are timed in one process and over 2 and 4, beside averages of as many
bytes as they exchange; groups take turns, and times are medians. A network's latency and bandwidth are fitted to the
averages. What a step over n processes should take is then said in two ways: from steps of as many processes at once
that exchange nothing, which tests what is said of exchanges, and from one process alone, which tests all of it. Seconds
of the table are those of the network and of the plain step that the options say.

    python benchmarks/processes [--rounds 9] [--size 16] [--batch 8] [--latency-us 20] [--bandwidth-gb 25]
        [--plain-ms 50] [--json FILE]
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cost import Network, Scaled, crowded, fitted, grown, shared
from group import PLAIN, Group, Problem, cores

COUNTS = (1, 2, 4)
TABLE = (1, 2, 4, 8, 16, 32, 64)
SMALL = 4096  # bytes: what only latency decides


@dataclass(frozen=True)
class Checked:
    """A step over n processes as it was, and as it was predicted; seconds."""

    kind: str
    processes: int
    measured: float
    from_apart: float
    from_one: float


class Times:
    """Medians of what groups of processes were asked for, one after the other, in several rounds."""

    def __init__(self, problem: Problem, rounds: int) -> None:
        self.problem, self.share = problem, {count: problem.images // count for count in COUNTS}
        found: dict[tuple[object, ...], list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            parts = {count: tuple(self.share.values()) if count == 1 else (self.share[count],) for count in COUNTS}
            groups = {count: Group(count, problem, parts[count], Path(folder)) for count in COUNTS}
            *_, self.exchanged = [group.exchanged() for group in groups.values()]
            self.sizes = sorted({size for sizes in self.exchanged.values() for size in sizes})
            for _ in range(rounds):
                for count, group in groups.items():
                    for what in self._asked(count):
                        found.setdefault((count, *what), []).append(group.seconds(*what))
            for group in groups.values():
                group.end()
        self._medians = {what: statistics.median(values) for what, values in found.items()}

    def _asked(self, count: int) -> Iterator[tuple[object, ...]]:
        for kind in self.problem.kinds:
            for part in self.share.values() if count == 1 else [self.share[count]]:
                yield "apart", kind, part
            if count > 1:
                yield "together", kind, self.share[count]
        if count > 1:
            yield from (("average", size) for size in self.sizes)

    def of(self, count: int, *what: object) -> float:
        """The median."""
        return self._medians[(count, *what)]

    def averages(self, *counts: int) -> list[tuple[int, int, float]]:
        """(bytes, processes, seconds) of the averages."""
        return [(size, count, self.of(count, "average", size)) for count in counts for size in self.sizes]


def checked(times: Times, networks: dict[int, Network]) -> list[Checked]:
    """Steps over 2 and 4 processes; the network of the others predicts from one process, its own from those apart."""
    rows = []
    for count in COUNTS[1:]:
        other = networks[COUNTS[1]]
        for kind in times.problem.kinds:
            part, sizes = times.share[count], times.exchanged[kind]
            alone = times.of(1, "apart", kind, part) * crowded(count, cores())
            rows.append(
                Checked(
                    kind,
                    count,
                    times.of(count, "together", kind, part),
                    times.of(count, "apart", kind, part) + networks[count].of_all(sizes, count),
                    alone + other.of_all(sizes, count),
                )
            )
    return rows


def print_exchanges(times: Times) -> None:
    """How often steps exchange, and how much."""
    print(f"{'step':18}{'averages':>10}{'of weights':>12}{'bytes':>12}{'times plain':>13}{'bytes, times':>14}")
    plain = times.exchanged[PLAIN]
    alone = times.of(1, "apart", PLAIN, times.problem.images)
    for kind, sizes in times.exchanged.items():
        ratio = times.of(1, "apart", kind, times.problem.images) / alone
        large = sum(size > SMALL for size in sizes)
        print(f"{kind:18}{len(sizes):10}{large:12}{sum(sizes):12}{ratio:13.2f}{sum(sizes) / sum(plain):14.2f}")


def print_check(rows: list[Checked], plain: float) -> None:
    """Times of a plain step of one process."""
    print(f"\n{'step':18}{'processes':>10}{'measured':>10}{'from apart':>12}{'error':>8}{'from one':>10}{'error':>8}")
    for row in rows:
        errors = [100 * (value / row.measured - 1) for value in (row.from_apart, row.from_one)]
        print(
            f"{row.kind:18}{row.processes:10}{row.measured / plain:10.2f}{row.from_apart / plain:12.2f}"
            f"{errors[0]:7.0f}%{row.from_one / plain:10.2f}{errors[1]:7.0f}%"
        )


def print_table(times: Times, network: Network, plain: float) -> dict[str, list[list[Scaled]]]:
    """Gains of n processes over one, whose plain step takes ``plain`` seconds."""
    print(f"\nlatency {network.latency * 1e6:g} µs, {network.bandwidth / 1e9:g} GB/s, plain step {plain * 1e3:g} ms")
    print(f"{'step':18}{'batch':10}" + "".join(f"{count:>8}" for count in TABLE))
    found: dict[str, list[list[Scaled]]] = {}
    for kind, sizes in times.exchanged.items():
        full = times.problem.images
        alone = plain * times.of(1, "apart", kind, full) / times.of(1, "apart", PLAIN, full)
        for name, scaled in (("each own", grown), ("divided", shared)):
            row = [scaled(alone, sizes, network, count) for count in TABLE]
            found.setdefault(kind, []).append(row)
            print(f"{kind:18}{name:10}" + "".join(f"{one.gain:8.1f}" for one in row))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="of which times are medians")
    parser.add_argument("--size", type=int, default=16, help="voxels per side of the square images")
    parser.add_argument("--batch", type=int, default=8, help="images of a step, of all processes together")
    parser.add_argument("--widths", default="16-32-64-128", help="channels of each level of the U-Net")
    parser.add_argument("--horizon", type=int, default=3, help="inner steps of an unrolled hypergradient")
    parser.add_argument("--latency-us", type=float, default=20.0, help="of the table's network, of a hop")
    parser.add_argument("--bandwidth-gb", type=float, default=25.0, help="of it, 1e9 bytes a second each way")
    parser.add_argument("--plain-ms", type=float, default=50.0, help="what a plain step takes one of its processes")
    parser.add_argument("--json", type=Path, help="also write the check and the table here")
    options = parser.parse_args()
    widths = tuple(int(width) for width in options.widths.split("-"))
    times = Times(Problem(options.size, options.batch, widths, options.horizon), options.rounds)
    print(f"{options.batch} slices of {options.size}x{options.size}, widths {options.widths}, {cores()} cores")
    print_exchanges(times)
    networks = {count: fitted(times.averages(count)) for count in COUNTS[1:]}
    print()
    for count, network in networks.items():
        speed = f"latency {network.latency * 1e6:.0f} µs, {network.bandwidth / 1e9:.2f} GB/s"
        print(f"averages over {count} processes of this machine: {speed}")
    rows = checked(times, networks)
    print_check(rows, times.of(1, "apart", PLAIN, options.batch))
    network = Network(options.latency_us * 1e-6, options.bandwidth_gb * 1e9, trees=True)
    table = print_table(times, network, options.plain_ms * 1e-3)
    if options.json:
        scaled = {kind: [[asdict(one) for one in row] for row in found] for kind, found in table.items()}
        options.json.write_text(json.dumps({"check": [asdict(row) for row in rows], "table": scaled}, indent=2))


if __name__ == "__main__":
    main()
