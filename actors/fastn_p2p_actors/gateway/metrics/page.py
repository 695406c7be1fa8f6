"""Page with the metrics, written by ``prometheus_client``."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ...network.call_counters import BOUNDS
from .metric_catalogue import COUNTER, GAUGE, HISTOGRAM, METRICS, PREFIX
from .samples import Histogram, Sample

_FAMILIES: Final = {COUNTER: CounterMetricFamily, GAUGE: GaugeMetricFamily, HISTOGRAM: HistogramMetricFamily}
_BUCKETS: Final = (*map(str, BOUNDS), "+Inf")


class _Families(Collector):
    def __init__(self, samples: Iterable[Sample | Histogram]) -> None:
        self._families: dict[str, Any] = {}
        for each in samples:
            family = self._families.get(each.name)
            if family is None:
                kind, text, labels = METRICS[each.name]
                family = _FAMILIES[kind](f"{PREFIX}{each.name}", text, labels=labels)
                self._families[each.name] = family
            if isinstance(each, Histogram):
                counts = list(zip(_BUCKETS, accumulate(each.counts), strict=True))
                family.add_metric(each.labels, counts, each.total)
            else:
                family.add_metric(each.labels, each.value)

    def collect(self) -> Iterable[Metric]:
        return self._families.values()


def page_of(samples: Iterable[Sample | Histogram]) -> bytes:
    """Return the page. Takes 20 ms for a thousand identities: call it in a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(samples))
    return generate_latest(registry)
