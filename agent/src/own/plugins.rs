//! What the agent tells of each plugin.

use picket_proto::model::{MetricType, Part};

use super::page::Page;
use crate::schedule::{Lateness, PluginStatus, State};

pub(super) fn tell(page: &mut Page<'_>, plugins: &[PluginStatus]) {
    if plugins.is_empty() {
        return;
    }
    page.family("picket_plugin_info", MetricType::Info, "The plugin's version and file.");
    for p in plugins.iter().filter(|p| !p.digest.is_empty()) {
        page.sample(
            &[("plugin", &p.id), ("version", &p.version), ("digest", &p.digest), ("world", &p.world)],
            1.0,
        );
    }
    page.family("picket_plugin_state", MetricType::Gauge, "1 for the state that the plugin is in.");
    for p in plugins {
        for state in State::ALL {
            page.sample(&[("plugin", &p.id), ("state", state.word())], f64::from(u8::from(p.state == state)));
        }
    }
    page.family(
        "picket_plugin_unsigned",
        MetricType::Gauge,
        "1 where the plugin runs without a signature, 0 where somebody whom the policy trusts vouches for it.",
    );
    for p in plugins.iter().filter(|p| !p.signed_by.is_empty()) {
        page.sample(&[("plugin", &p.id)], f64::from(u8::from(p.signed_by == "unsigned")));
    }
    page.family(
        "picket_plugin_swaps_total",
        MetricType::Counter,
        "New versions of a plugin, by whether they took the place of the running one.",
    );
    for p in plugins {
        page.sample(&[("plugin", &p.id), ("result", "done")], p.swaps.done as f64);
        page.sample(&[("plugin", &p.id), ("result", "refused")], p.swaps.refused as f64);
    }
    page.family("picket_plugin_collects_total", MetricType::Counter, "Collects, by how they ended.");
    for p in plugins {
        page.sample(&[("plugin", &p.id), ("result", "ok")], p.collects.ok as f64);
        page.sample(&[("plugin", &p.id), ("result", "failed")], p.collects.failed as f64);
    }
    type Read = fn(&PluginStatus) -> f64;
    let counters: [(&str, &str, Read); 5] = [
        ("picket_plugin_collects_skipped_total", "Ticks that found the last collect still running.", |p| {
            p.collects.skipped as f64
        }),
        ("picket_plugin_samples_total", "Samples collected.", |p| p.collects.samples as f64),
        ("picket_plugin_events_total", "Events collected.", |p| p.collects.events as f64),
        ("picket_plugin_collect_seconds_total", "Wall time in collects.", |p| p.collects.seconds),
        ("picket_plugin_guest_seconds_total", "CPU time inside the plugin.", |p| p.collects.guest_seconds),
    ];
    for (name, help, read) in counters {
        page.family(name, MetricType::Counter, help);
        for p in plugins {
            page.sample(&[("plugin", &p.id)], read(p));
        }
    }
    page.family(
        "picket_plugin_tick_lateness_seconds",
        MetricType::Histogram,
        "How much later than planned ticks came to run: what the node and its other plugins made them wait.",
    );
    for p in plugins {
        let late = &p.collects.late;
        for (bound, within) in Lateness::BOUNDS.iter().zip(late.within) {
            page.part(Part::Bucket, &[("plugin", &p.id), ("le", &format!("{bound:?}"))], within as f64);
        }
        page.part(Part::Bucket, &[("plugin", &p.id), ("le", "+Inf")], late.ticks as f64);
        page.part(Part::Sum, &[("plugin", &p.id)], late.seconds);
        page.part(Part::Count, &[("plugin", &p.id)], late.ticks as f64);
    }
    let gauges: [(&str, &str, Read); 2] = [
        ("picket_plugin_series", "Live series of the plugin.", |p| p.series as f64),
        ("picket_plugin_interval_seconds", "The interval between collects.", |p| p.interval_seconds),
    ];
    for (name, help, read) in gauges {
        page.family(name, MetricType::Gauge, help);
        for p in plugins {
            page.sample(&[("plugin", &p.id)], read(p));
        }
    }
    let last: [(&str, &str, Read); 3] = [
        (
            "picket_plugin_last_collect_timestamp_seconds",
            "When the last collect began, in seconds since the Unix epoch.",
            |p| p.last.as_ref().map_or(0.0, |last| last.timestamp_ms as f64 / 1000.0),
        ),
        ("picket_plugin_last_collect_duration_seconds", "Wall time of the last collect.", |p| {
            p.last.as_ref().map_or(0.0, |last| last.seconds)
        }),
        ("picket_plugin_memory_bytes", "Linear memory of the plugin after the last collect.", |p| {
            p.last.as_ref().map_or(0.0, |last| last.memory_bytes as f64)
        }),
    ];
    for (name, help, read) in last {
        page.family(name, MetricType::Gauge, help);
        for p in plugins.iter().filter(|p| p.last.is_some()) {
            page.sample(&[("plugin", &p.id)], read(p));
        }
    }
}
