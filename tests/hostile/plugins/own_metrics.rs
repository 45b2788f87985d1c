//! Writes into the agent's own families.
//!
//! must: goes-on
//! must: not-exported hostile-was-here

use hostile::{Hostile, MetricType, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        for name in [
            "picket_agent_info",
            "picket_plugin_state",
            "picket_source_errors_total",
            "picket_spool_records_lost_total",
        ] {
            let number = hostile::declare(hostile::family(name, MetricType::Gauge));
            let series =
                number.and_then(|number| hostile::register(number, &[("plugin", "hostile-was-here")]));
            if let Ok(series) = series {
                hostile::push(&[(series, 666.0)])?;
            }
        }
        Ok(())
    }
}

plugin!(Plugin);
