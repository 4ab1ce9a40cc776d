"""Sends metrics, logs and traces with the OpenTelemetry SDK and prints, as JSON, what was sent.

    otel_send.py --protocol grpc|http --endpoint URL --service NAME

The record is the sender's own: every value in it was given to the SDK or read from the SDK's objects, none was
read back from the server.
"""

import argparse
import json
import sys
import time


def exporters(protocol, endpoint):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        common = {"endpoint": endpoint, "insecure": True}
        return OTLPMetricExporter(**common), OTLPLogExporter(**common), OTLPSpanExporter(**common)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    gzip = {"compression": Compression.Gzip}
    return (
        OTLPMetricExporter(endpoint=endpoint + "/v1/metrics", **gzip),
        OTLPLogExporter(endpoint=endpoint + "/v1/logs", **gzip),
        OTLPSpanExporter(endpoint=endpoint + "/v1/traces", **gzip),
    )


def send_metrics(resource, exporter, service):
    from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableGauge, UpDownCounter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    exponential = View(instrument_name="payload.size", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider(metric_readers=[reader], resource=resource, views=[exponential])
    meter = provider.get_meter("tercet.test", "1.2.3")

    requests = meter.create_counter("http.requests", unit="{request}", description="Requests served.")
    for code, times in (("200", 40), ("404", 3), ("500", 2)):
        for _ in range(times):
            requests.add(1, {"http.status": code})
    inflight = meter.create_up_down_counter("inflight", description="Requests in flight.")
    inflight.add(7)
    inflight.add(-3)
    meter.create_observable_gauge("temperature", callbacks=[lambda _: observe()], unit="Cel")
    latency = meter.create_histogram(
        "latency", unit="s", description="Time to answer.", explicit_bucket_boundaries_advisory=[0.1, 0.5, 1.0]
    )
    durations = [0.05, 0.1, 0.25, 0.75, 2.5]
    for value in durations:
        latency.record(value)
    size = meter.create_histogram("payload.size", unit="By")
    sizes = [1.0, 2.0, 4.0, 100.0, 1000.0]
    for value in sizes:
        size.record(value)
    assert provider.force_flush(), "metrics were not exported"
    provider.shutdown()
    job = {"job": service}
    return {
        "floats": [
            {"name": "http_requests_total", "labels": {**job, "http_status": "200"}, "value": 40},
            {"name": "http_requests_total", "labels": {**job, "http_status": "404"}, "value": 3},
            {"name": "http_requests_total", "labels": {**job, "http_status": "500"}, "value": 2},
            {"name": "inflight", "labels": job, "value": 4},
            {"name": "temperature_celsius", "labels": job, "value": 21.5},
            {"name": "latency_seconds_count", "labels": job, "value": len(durations)},
            {"name": "latency_seconds_sum", "labels": job, "value": sum(durations)},
            {"name": "latency_seconds_bucket", "labels": {**job, "le": "0.1"}, "value": 2},
            {"name": "latency_seconds_bucket", "labels": {**job, "le": "0.5"}, "value": 3},
            {"name": "latency_seconds_bucket", "labels": {**job, "le": "1"}, "value": 4},
            {"name": "latency_seconds_bucket", "labels": {**job, "le": "+Inf"}, "value": 5},
        ],
        "histograms": [{"name": "payload_size_bytes", "labels": job, "count": len(sizes), "sum": sum(sizes)}],
        "metadata": {
            "http_requests_total": ["counter", "Requests served."],
            "inflight": ["gauge", "Requests in flight."],
            "latency_seconds": ["histogram", "Time to answer."],
        },
    }


def observe():
    from opentelemetry.metrics import Observation

    yield Observation(21.5)


def send_traces(resource, exporter):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("tercet.test", "1.2.3")
    spans = []
    for n in range(5):
        with tracer.start_as_current_span("GET /job", kind=trace.SpanKind.SERVER) as root:
            root.set_attribute("http.response.status_code", 500 if n == 4 else 200)
            root.set_attribute("attempt", n)
            with tracer.start_as_current_span("infer", kind=trace.SpanKind.CLIENT) as child:
                child.set_attribute("gpu.share", 0.25)
                child.set_attribute("batched", True)
                child.set_attribute("models", ["a", "b"])
                child.add_event("queued", {"depth": n})
                if n == 4:
                    child.set_status(trace.Status(trace.StatusCode.ERROR, "out of memory"))
                time.sleep(0.002)
        spans += [root, child]
    assert provider.force_flush(), "spans were not exported"
    provider.shutdown()
    return [
        {
            "trace_id": f"{span.context.trace_id:032x}",
            "span_id": f"{span.context.span_id:016x}",
            "parent_span_id": f"{span.parent.span_id:016x}" if span.parent else "",
            "name": span.name,
            "kind": "SPAN_KIND_" + span.kind.name,
            "start_ns": span.start_time,
            "end_ns": span.end_time,
            "status": span.status.status_code.name,
            "status_message": span.status.description or "",
            "attributes": {key: list(v) if isinstance(v, tuple) else v for key, v in span.attributes.items()},
            "events": [{"name": e.name, "ts_ns": e.timestamp, "attributes": dict(e.attributes)} for e in span.events],
        }
        for span in spans
    ]


def send_logs(resource, exporter, spans):
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    provider = LoggerProvider(resource=resource)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = provider.get_logger("tercet.test", "1.2.3")
    record = []
    start_ns = time.time_ns()
    for n in range(50):
        ts_ns = start_ns + n * 1_000_000 + n
        text = f"request {n} took {n * 3} ms — naïve ☃"
        span = spans[n % len(spans)]
        context = SpanContext(int(span["trace_id"], 16), int(span["span_id"], 16), False, TraceFlags(1))
        level = SeverityNumber.ERROR if n % 10 == 0 else SeverityNumber.INFO
        logger.emit(
            LogRecord(
                timestamp=ts_ns,
                context=set_span_in_context(NonRecordingSpan(context)),
                severity_number=level,
                severity_text=level.name,
                body=text,
                attributes={"user.id": f"u{n % 7}"},
            )
        )
        record.append(
            {
                "ts_ns": ts_ns,
                "line": text,
                "level": level.name.lower(),
                "trace_id": span["trace_id"],
                "span_id": span["span_id"],
                "user_id": f"u{n % 7}",
            }
        )
    assert provider.force_flush(), "logs were not exported"
    provider.shutdown()
    return record


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--protocol", choices=["grpc", "http"], required=True)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--service", required=True)
    arguments = parser.parse_args()
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({"service.name": arguments.service, "deployment.environment": "test"})
    metric_exporter, log_exporter, span_exporter = exporters(arguments.protocol, arguments.endpoint)
    spans = send_traces(resource, span_exporter)
    record = {
        "service": arguments.service,
        "spans": spans,
        "logs": send_logs(resource, log_exporter, spans),
        "metrics": send_metrics(resource, metric_exporter, arguments.service),
    }
    json.dump(record, sys.stdout)


if __name__ == "__main__":
    main()
