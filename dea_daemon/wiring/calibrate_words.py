"""What `dea-daemon calibrate` found, for people."""

from pathlib import Path
from typing import Any

UNKNOWN = "unknown"


def told(found: dict[str, Any], out: Path) -> list[str]:
    """For people."""
    evidence = found["evidence"]
    risk, bands = evidence["risk"], evidence["bands"]
    lines = [f"{risk['unseen_days']:,} days the choice had not seen; QLIKE, less is better:"]
    for name, row in risk["by_underlying"].items():
        unseen, over = row["qlike_unseen_days"], row["chosen_over_ewma_10d"]
        lines.append(
            f"  {name:<6} chosen {unseen['chosen']:.4f}   as configured {unseen['incumbent']:.4f}   "
            f"EWMA 10 d {unseen['ewma_10d']:.4f} (t {over['t']:.1f})"
        )
        lines += [f"  {'':<6} 99 % VaR: {_var(row['var_99_chosen'])}"] if "var_99_chosen" in row else []
    lines.append(_outcome("risk model", risk))
    lines.append(_outcome("correlations", evidence["correlation"]))
    lines += [_outcome(f"forecasters, {who}", one) for who, one in evidence["forecasters"].items()]
    lines += _costs(evidence["costs"])
    lines.append(_outcome("bands", bands))
    if "deflated_sharpe" in bands:
        deflated = bands["deflated_sharpe"]
        lines.append(f"  Sharpe {bands['sharpe_year']:.2f} a year; deflated for {bands['trials']:,} trials: "
                     f"{deflated if deflated == UNKNOWN else format(deflated, '.2f')}")  # fmt: skip
    return [*lines, f"written: {out} (calibration: {out.name} in a configuration takes it)"]


def _var(row: dict[str, Any]) -> str:
    return (
        f"{row['failures']} failures in {row['days']:,} days, Kupiec p {row['kupiec_p']:.2f}, "
        f"Christoffersen p {row['christoffersen_p']:.2f}"
    )


def _outcome(what: str, told: dict[str, Any]) -> str:
    if "skipped" in told:
        return f"{what}: {told['skipped']}"
    over = told["chosen_over_incumbent"]
    outcome = f"changed to {told['best']}" if told["adopted"] else "nothing was significantly better: it stays"
    overfit = "unknown" if told["overfitting"] is None else f"{told['overfitting']:.2f}"
    return f"{what}: {outcome} (t {over['t']:.2f}, p {over['p']:.3f}, overfitting {overfit})"


def _costs(told: dict[str, Any]) -> list[str]:
    if "skipped" in told:
        return [f"costs: {told['skipped']}"]
    beyond, whole, over = told["beyond_fee_bp"], told["with_fee_bp"], told["measured_over_configured"]
    assumed = told["configured"]
    outcome = f"raised to {told['best']['cost_bp']:g} bp" if told["adopted"] else "it stays"
    of_trial = assumed["forecast.learners.trial.cost_bp"]
    return [
        f"costs of {told['orders']:,} orders on {told['days']:,} days, trimmed means:",
        (
            f"  beyond the fee {beyond['mean']:.2f} ± {beyond['error']:.2f} bp (backtest.half_spread_bp "
            f"{assumed['backtest.half_spread_bp']:g}, execution.surcharge_most_bp "
            f"{assumed['execution.surcharge_most_bp']:g}); fee {told['fee_bp']:.2f} (backtest.taker_bp "
            f"{assumed['backtest.taker_bp']:g})"
        ),
        (
            f"  with the fee {whole['mean']:.2f} ± {whole['error']:.2f} bp, learners.trial.cost_bp {of_trial:g} "
            f"(t {over['t']:.2f}, p {over['p']:.3f}): {outcome}"
        ),
    ]
