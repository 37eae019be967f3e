"""What to do about losses: sentences that follow from the numbers, and none where little is lost."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.evaluation.loss_report import Estimate, LossReport
from retrieval.config import Config
from retrieval.datatypes import IndexManifest, Quantization
from retrieval.evaluation.losses import ORDERING, READING, Stage

SMALL = 0.02
FEW = 3
"""A stage that loses less than this share of the relevant documents, or fewer of them, gets no advice."""

_WORTH_A_CHANGE = 0.25


def advice_of(
    report: LossReport, config: Config, manifest: IndexManifest, quantization: Quantization
) -> tuple[str, ...]:
    """Sentences in the order of the pipeline.

    Args:
        report: The losses.
        config: Settings of the system.
        manifest: What its index was built with.
        quantization: How its vectors are compressed.
    """
    if not report.relevant:
        return ()
    return (
        *_ingested(report),
        *_fetched(report, manifest),
        *_compressed(report, quantization),
        *_read(report, config),
        *_windows(report, config),
        *_ordered(report, config),
    )


def _ingested(report: LossReport) -> Iterator[str]:
    missing = report.stages["not ingested"]
    if missing:
        why = "; ".join(f"{count:,}: {reason}" for reason, count in list(report.reasons.items())[:3])
        yield f"Not in the index: {_documents(missing)} ({why}). No setting finds them."


def _fetched(report: LossReport, manifest: IndexManifest) -> Iterator[str]:
    both = report.stages["encoder and BM25"]
    if _counts(report, "encoder and BM25"):
        unseen = next((arm.unseen for arm in report.arms if arm.arm == "bm25"), 0)
        missed = f"both arms missed {_documents(both)}"
        if unseen:
            missed += f", {unseen:,} of which {'shares' if unseen == 1 else 'share'} no word with the query for BM25"
        if manifest.adapted_from is None:
            yield f"Adapt the encoder ('retrieval adapt'): {missed}."
        else:
            yield f"Train the encoder on queries of this kind ('retrieval train'): adapted as it is, {missed}."
    if not _counts(report, "encoder and BM25", "fusion cut"):
        return
    lost = both + report.stages["fusion cut"]
    tried = ", ".join(f"{count:,} with {more:,}" for more, count in report.with_more.items())
    if any(count >= _WORTH_A_CHANGE * lost for count in report.with_more.values()):
        yield (
            f"Raise first_stage.candidates above {report.candidates:,}: of {_documents(lost)} that were missed or cut, "
            f"it fetches {tried}. They come in far down, so the cross-encoder has to read that far (rerank.depth is "
            f"{report.depth:,})."
        )
    else:
        yield f"More candidates hardly help: of {_documents(lost)} that were missed or cut they fetch {tried}."


def _compressed(report: LossReport, quantization: Quantization) -> Iterator[str]:
    gain = report.exact_gain
    codes, graph = report.stages["quantization"], report.stages["approximate search"]
    if gain is None or not (gain.sign > 0 or _counts(report, "quantization", "approximate search")):
        return
    what = f"quantization ({quantization}) lost {codes:,}" if quantization.kind != "none" else ""
    parts = [part for part in (what, f"the graph lost {graph:,}" if graph else "") if part]
    remedy = "raise quantization.oversampling or the bits" if codes >= graph else "raise hnsw.ef"
    yield (
        f"Compressed and approximate search cost the first stage {_signed(gain)} nDCG@10 against exact search; "
        f"{' and '.join(parts)} of the relevant documents: {remedy}."
    )


def _read(report: LossReport, config: Config) -> Iterator[str]:
    unread = sum(report.stages[stage] for stage in READING)
    if not _counts(report, *READING):
        return
    rising = report.would_rise(*READING)
    budget = report.stages["rerank budget"]
    setting = f"rerank.budget_ms above {config.rerank.budget_ms:g}" if budget * 2 > unread else ""
    setting = setting or f"rerank.depth above {report.depth}{_or_early_stop(config)}"
    if rising >= _WORTH_A_CHANGE * unread:
        yield (
            f"Raise {setting}: of {_documents(unread)} that were candidates and not read, reading would lift up to "
            f"{rising:,} into the top {report.places}."
        )
    else:
        yield (
            f"Reading further hardly helps: of {_documents(unread)} that were candidates and not read it would lift "
            f"{f'at most {rising:,}' if rising else 'none'} into the top {report.places}."
        )


def _or_early_stop(config: Config) -> str:
    early = config.rerank.early_stop
    return f", or set rerank.early_stop to exact instead of {early:g}" if isinstance(early, float) else ""


def _windows(report: LossReport, config: Config) -> Iterator[str]:
    if _counts(report, "passage window") and config.rerank.window_words is not None:
        yield (
            f"Try rerank.window_words above {config.rerank.window_words}: up to "
            f"{_documents(report.stages['passage window'])} scored too low where the cross-encoder read, and enough "
            "elsewhere."
        )


def _ordered(report: LossReport, config: Config) -> Iterator[str]:
    gain, weight = report.gain, config.rerank.first_stage_weight
    moved = (
        f"it brought {_documents(report.lifted_in)} into the top {report.places} and pushed {report.pushed_out:,} out"
    )
    if gain.sign < 0:
        lower = f"raise rerank.first_stage_weight above {weight:g}, " if weight < 1 else ""
        yield (
            f"The reranker hurts here: {_signed(gain)} nDCG@10 against hybrid alone, {moved}. Lower its share: {lower}"
            f"lower rerank.depth below {report.depth}, or train it on your pairs ('retrieval train-reranker'). "
            "'retrieval tune' chooses among them."
        )
    elif gain.sign == 0 and report.depth and report.bottleneck != "none":
        queries = f"{report.queries:,} {'query' if report.queries == 1 else 'queries'}"
        yield (
            f"Whether the reranker helps is not distinguishable with {queries}: {_signed(gain)} nDCG@10 against hybrid "
            f"alone, {moved}. Without it a search is faster (rerank.enabled: false)."
        )
    elif _counts(report, *ORDERING) and report.lost_ordering.mean > report.lost_fetching.mean:
        yield (
            f"The order of what was read is what costs most ({report.lost_ordering.mean:.3f} nDCG@10): the reranker "
            f"helps ({_signed(gain)}), and a stronger one, or this one trained on your pairs "
            "('retrieval train-reranker'), would help more."
        )


def verdict(report: LossReport) -> str:
    """One sentence: is the first or the second stage the bottleneck?"""
    first = f"the first stage loses {report.lost_fetching.mean:.3f} nDCG@10"
    second = report.lost_reading.mean + report.lost_ordering.mean
    numbers = (
        f"{first}, the second {second:.3f} ({report.lost_reading.mean:.3f} by not reading, "
        f"{report.lost_ordering.mean:.3f} by its order)"
    )
    if not report.relevant:
        return "No document is judged relevant, so nothing could be lost."
    if report.bottleneck == "none":
        return f"Nothing is lost to speak of: {numbers}."
    if report.bottleneck == "open":
        queries = f"{report.queries:,} {'query' if report.queries == 1 else 'queries'}"
        return f"Which stage is the bottleneck is not distinguishable with {queries}: {numbers}."
    return f"The {report.bottleneck} is the bottleneck: {numbers}."


def _counts(report: LossReport, *stages: Stage) -> bool:
    lost = sum(report.stages[stage] for stage in stages)
    return lost >= FEW and lost >= SMALL * report.relevant


def _documents(count: int) -> str:
    return f"{count:,} relevant {'document' if count == 1 else 'documents'}"


def _signed(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{estimate.mean:+.3f} (95 % {low:+.3f} to {high:+.3f})"
