//! OTLP metrics in protobuf, to classic and to native histograms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proto::limits::Limits;
use proto::otlp::metrics::{OtlpMetricsSettings, decode};

fuzz_target!(|body: &[u8]| {
    if let Ok(request) = proto::otlp::decode_protobuf::<ExportMetricsServiceRequest>(body) {
        for convert_histograms_to_nhcb in [false, true] {
            let settings = OtlpMetricsSettings { convert_histograms_to_nhcb, ..OtlpMetricsSettings::default() };
            let _ = decode(&request, &settings, &Limits::default());
        }
    }
});
