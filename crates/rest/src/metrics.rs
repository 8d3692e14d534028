//! Counts of requests for Prometheus. Bounded: one series for an operation and class of status.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

/// Upper bounds of the duration buckets, in microseconds.
const BUCKETS: [u64; 8] = [500, 1_000, 5_000, 20_000, 100_000, 500_000, 2_000_000, 10_000_000];

#[derive(Default)]
struct Series {
    count: u64,
    micros: u64,
    buckets: [u64; BUCKETS.len()],
}

/// Requests answered, by service, operation and status.
#[derive(Default)]
pub struct Metrics(Mutex<BTreeMap<(&'static str, &'static str, u16), Series>>);

impl Metrics {
    pub fn record(&self, service: &'static str, operation: &'static str, status: u16, micros: u64) {
        let mut all = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let series = all.entry((service, operation, status)).or_default();
        series.count += 1;
        series.micros += micros;
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(micros <= bound);
        }
    }

    /// The text form that Prometheus reads.
    pub fn render(&self) -> String {
        let all = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut text = String::from("# TYPE nubo_requests_total counter\n");
        for ((service, operation, status), series) in all.iter() {
            let labels = format!("service=\"{service}\",operation=\"{operation}\",status=\"{status}\"");
            let _ = writeln!(text, "nubo_requests_total{{{labels}}} {}", series.count);
        }
        text.push_str("# TYPE nubo_request_seconds histogram\n");
        for ((service, operation, status), series) in all.iter() {
            let labels = format!("service=\"{service}\",operation=\"{operation}\",status=\"{status}\"");
            for (count, bound) in series.buckets.iter().zip(BUCKETS) {
                let seconds = bound as f64 / 1e6;
                let _ = writeln!(text, "nubo_request_seconds_bucket{{{labels},le=\"{seconds}\"}} {count}");
            }
            let _ = writeln!(text, "nubo_request_seconds_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _ = writeln!(text, "nubo_request_seconds_sum{{{labels}}} {}", series.micros as f64 / 1e6);
            let _ = writeln!(text, "nubo_request_seconds_count{{{labels}}} {}", series.count);
        }
        text
    }
}
