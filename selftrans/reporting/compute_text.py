"""What methods cost, for people: Markdown and LaTeX with what must be known to read them."""

from typing import Any

import pandas as pd

from selftrans.config.names import INCEPTION
from selftrans.plan.plan import Plan
from selftrans.reporting.compute import PARTS
from selftrans.reporting.figures.style import look_of
from selftrans.reporting.latex import caption, environment, origin
from selftrans.reporting.markdown import as_table, digits_of
from selftrans.reporting.text import one_line

TITLE = "What a FLOP buys"


def compute_to_markdown(plan: Plan, frame: pd.DataFrame) -> str:
    """What is counted and how to read it, and the table."""
    return "\n".join([f"# {TITLE}", "", *introduction(plan, frame), "", as_table(compute_cells(plan, frame)), ""])


def compute_to_latex(plan: Plan, frame: pd.DataFrame) -> str:
    """A ``table`` environment, as wide as its text and at most as the line; its label is ``tab:compute``.

    Needs the packages booktabs and graphicx.
    """
    cells = compute_cells(plan, frame).drop(columns="run")
    columns = "l" + "r" * (len(cells.columns) - 1)
    return environment(
        origin(plan, f"compute --claim-seeds {len(plan.claim_seeds)}", "booktabs, graphicx"),
        caption(TITLE, "compute", introduction(plan, frame)),
        cells,
        columns,
    )


def compute_cells(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """What readers see, as text under headers: a line for each row of compute.yaml."""
    lines = frame.astype(object).where(frame.notna(), None).to_dict("records")
    distance = "FID ↓" if frame["extractor"].iloc[0] == INCEPTION else "Fréchet ↓"
    return pd.DataFrame(
        [
            {
                "": look_of(plan.run(found["run"], seed=0)).name,
                "epochs": str(found["epochs"]),
                "PFLOP": _number(found["pflop"]),
                **{f"{words} %": _share(found, part) for part, words in PARTS.items()},
                distance: _distance(found),
                "PFLOP to vanilla's end": _estimate(found, "final_pflop"),
                "of vanilla's": _ratio(found, "final"),
                "of vanilla's, as far as both get": _ratio(found, "both"),
                "PFLOP until ahead": _estimate(found, "ahead_pflop"),
                "seeds": str(found["seeds"]),
                "run": found["run"],
            }
            for found in lines
        ]
    )


def _number(value: float) -> str:
    """Three digits that count."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def _share(found: dict[str, Any], part: str) -> str:
    share = 100 * found[f"pflop_{part}"] / found["pflop"]
    return f"{share:.1f}" if share else ""


def _distance(found: dict[str, Any]) -> str:
    digits, spread = digits_of("frechet", found["extractor"]), found["frechet_std"]
    return f"{found['frechet']:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _ratio(found: dict[str, Any], at: str) -> str:
    said = found.get(f"{at}_verdict")
    return _estimate(found, f"{at}_ratio") + (f", {said}" if said else "")


def _estimate(found: dict[str, Any], name: str) -> str:
    """A mean with its interval, or what is known of it."""
    if found.get(f"{name}_known") is None:
        return ""
    if found[name] is not None:
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        return _number(found[name]) + ("" if low is None else f" ({_number(low)} to {_number(high)})")
    least, most = (found[f"{name}_{bound}"] for bound in ("least", "most"))
    bounds = [f"{sign} {_number(value)}" for sign, value in (("≥", least), ("≤", most)) if value is not None]
    return f"{', '.join(bounds) or 'unknown'} (known at {found[f'{name}_known']} of {found['seeds']} seeds)"


def introduction(plan: Plan, frame: pd.DataFrame) -> list[str]:
    """What is counted and how to read the columns, as lines of Markdown."""
    example = frame.iloc[0]
    return [
        f"Scale `{plan.scale.name}`: {one_line(plan.scale.description)}. Distances are over features of "
        f"`{example['extractor']}`, {example['samples']} samples, preset `{plan.project.compute.preset}`; rows are "
        "followed as far, and over as many seeds, as tables and claims train them.",
        "",
        "*PFLOP* is all that is paid until the last milestone: the student forward and backward, the method's "
        "projector, the forward passes that make its *target* (guiding model twice, encoder, moving average), as long "
        "as the method acts; and *stage 1*, the whole training of the guiding model, counted for each of its students. "
        "Not counted are images and latents, which are made once, the training of VAE and encoder, and sampling.",
        "",
        "*PFLOP to vanilla's end*: what a row costs until it reaches the distance at which vanilla training ends; *of "
        "vanilla's*: how many times that is of what vanilla training costs to the same distance; *as far as both get*: "
        "the same at the smallest distance that both reach, which is another for each row. Less than 1 is cheaper. "
        "*PFLOP until ahead*: from where on the row is ahead of vanilla training that was paid the same. Between "
        "milestones distances are linear in the logarithm of the cost. Means over seeds are geometric, with the 95 % "
        "interval of a paired t-test of logarithms: *cheaper* or *dearer* if it leaves out 1, *undecided* if not. "
        "Where a curve does not get there within its milestones (≥), or was there before its first (≤), the mean is "
        "known by that bound alone, and nothing is tested.",
    ]
