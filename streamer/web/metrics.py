"""/metrics: a worker's figures in the form of Prometheus, made when they are asked for.

Which there are, and what they are called: `figures.py`. Those of the process (memory, CPU,
open files) are the library's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from streamer.web.figures import Family, Figures
from streamer.web.view import View


class Metrics:
    """What one worker answers."""

    def __init__(self, view: View) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(WorkerCollector(Figures(view)))
        ProcessCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """As a scraper that accepts this wants it, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class WorkerCollector(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        return map(metric, self._figures)


def metric(family: Family) -> Metric:
    made: CounterMetricFamily | GaugeMetricFamily
    if family.counts:
        made = CounterMetricFamily(family.name, family.help, labels=family.labels)
    else:
        made = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for values, number in family.samples:
        made.add_metric(values, float(number))
    return made
