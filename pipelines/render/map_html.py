"""The map of an index as one HTML file: it loads nothing, and says everything in a table too."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.corpus_views.clusters import Cluster, ClusterPoint, ClustersReport

_TEMPLATE = "map.html"
_LISTED = 200


def map_page(report: ClustersReport, name: str) -> str:
    """The page, light or dark as its reader likes it.

    Args:
        report: Clusters with places.
        name: Name of the index, for the title.

    Raises:
        ValueError: The points have no places.
    """
    if not report.mapped:
        raise ValueError("a map needs places: find the clusters with mapped=True")
    data = {
        "labels": [cluster.label for cluster in report.clusters],
        "points": [[round(p.x, 4), round(p.y, 4), p.cluster - 1, _name(p), p.title, p.text] for p in report.points],
    }
    page = files("pipelines.render").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    # The data come last: nothing that a document says is looked at for places to fill.
    for place, text in (
        ("<!--TITLE-->", html.escape(name)),
        ("<!--FACTS-->", html.escape(facts_of(report))),
        ("<!--TABLE-->", _table(report)),
    ):
        page = page.replace(place, text.replace("<!--", "&lt;!--"))
    return page.replace("<!--DATA-->", _json(data))


def facts_of(report: ClustersReport) -> str:
    """How much is shown, and how the number of clusters came about."""
    what = f"{len(report.points):,} {report.by}s"
    if len(report.points) < report.total:
        what = f"a sample of {len(report.points):,} of {report.total:,} {report.by}s"
    how = "as many clusters as asked for"
    if report.silhouettes:
        tried = dict(report.silhouettes)
        count = len(report.clusters)
        score = f", {tried[count]:.3f}" if count in tried else ""
        how = f"the number of clusters is the largest that keeps nine tenths of the best silhouette{score}"
    return (
        f"{what[0].upper()}{what[1:]} in {len(report.clusters)} clusters; {how}. Near points are alike; distances "
        "between far ones mean little. Labels are the words that are much more frequent in a cluster than elsewhere."
    )


def _table(report: ClustersReport) -> str:
    rows = "\n".join(_row(cluster, report) for cluster in report.clusters)
    return (
        '<table><thead><tr><th scope="col">cluster</th><th scope="col">telling words</th>'
        f'<th scope="col" class="n">{report.by}s</th><th scope="col">in its middle</th>'
        f'<th scope="col">all</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _row(cluster: Cluster, report: ClustersReport) -> str:
    own = [point for point in report.points if point.cluster == cluster.number]
    listed = "".join(f"<li>{html.escape(point.title or _name(point))}</li>" for point in own[:_LISTED])
    more = f"<li>and {len(own) - _LISTED:,} more</li>" if len(own) > _LISTED else ""
    central = "; ".join(html.escape(title or name) for name, title in cluster.central)
    return (
        f'<tr><th scope="row">{html.escape(cluster.label)}</th><td>{html.escape(", ".join(cluster.terms))}</td>'
        f'<td class="n">{cluster.size:,}</td><td>{central}</td>'
        f"<td><details><summary>list</summary><ul>{listed}{more}</ul></details></td></tr>"
    )


def _name(point: ClusterPoint) -> str:
    return point.document_id if point.index is None else f"{point.document_id}, passage {point.index + 1}"


def _json(data: object) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")
