"""The answers of the tools as text."""

from __future__ import annotations

from pipelines.mcp_server.replies import CollectionsReply, DocumentReply, HitReply, IngestReply, SearchReply


def search_text(reply: SearchReply) -> str:
    """Hits, best first, with what an assistant needs to cite them and to read on."""
    blocks = [_hit(hit) for hit in reply.hits]
    if not blocks:
        blocks = ["No hits."]
    notes = [f"Note: {warning}" for warning in reply.warnings]
    return "\n\n".join([*blocks, *notes])


def document_text(reply: DocumentReply) -> str:
    """A stretch of a document, and where to go on."""
    place = f"characters {reply.offset:,}-{reply.end:,} of {reply.length:,}"
    head = f"{reply.title or reply.id} (document {reply.id}, {place})"
    tail = [] if reply.next_offset is None else [f"[goes on: call get_document with offset {reply.next_offset}]"]
    others = [f"[other documents have this id too: {', '.join(reply.other_sources)}]"] if reply.other_sources else []
    return "\n\n".join([head, reply.text, *tail, *others])


def ingest_text(reply: IngestReply) -> str:
    """What an ingest did."""
    counts = f"{reply.added:,} added, {reply.changed:,} changed, {reply.unchanged:,} unchanged"
    written = f"{reply.passages:,} passages written in {reply.seconds:.1f} s"
    lines = [f"{counts}, {reply.rejected:,} rejected; {written}"]
    lines += [f"rejected {refusal.source}: {refusal.reason}" for refusal in reply.rejections]
    return "\n".join(lines)


def collections_text(reply: CollectionsReply) -> str:
    """One line for each collection."""
    lines = []
    for one in reply.collections:
        if one.problem is not None:
            lines.append(f"{one.name}: cannot be searched: {one.problem}")
            continue
        lines.append(
            f"{one.name}: {one.documents or 0:,} documents, {one.passages or 0:,} passages, encoder {one.encoder}, "
            f"quantization {one.quantization}, updated {one.updated}"
        )
    if reply.ingest_roots:
        lines.append(f"ingest may read: {', '.join(reply.ingest_roots)}")
    return "\n".join(lines)


def _hit(hit: HitReply) -> str:
    head = f"[{hit.rank}] {hit.title or hit.document_id}"
    for heading in hit.headings:
        head += f" > {heading}" if heading != hit.title else ""
    place = f"document {hit.document_id}, characters {hit.start:,}-{hit.end:,}"
    sure = "" if hit.probability is None else f", probability {hit.probability:.2f}"
    numbers = f"score {hit.score:.3f}{sure}, first stage rank {hit.first_stage_rank}"
    return f"{head}\n{place}; {numbers}\n{'… ' if hit.cut else ''}{hit.text}{' …' if hit.cut else ''}"
