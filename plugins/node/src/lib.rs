//! t
use picket_sdk::{Collect, Describe, Failure, GaugeFamily, NoSettings, Source, files};
/// t
pub struct Load {
    load1: GaugeFamily,
}
impl Source for Load {
    type Settings = NoSettings;
    fn describe(families: &mut Describe) -> Self {
        Self { load1: families.gauge("node_load1", "1m load average.") }
    }
    fn collect(&mut self, _: &mut Collect<'_>) -> Result<(), Failure> {
        let text = files::read("/proc/loadavg")?;
        let text = String::from_utf8_lossy(&text);
        let value = text.split(' ').next().and_then(|word| word.parse().ok());
        self.load1.set(value.ok_or_else(|| Failure::new("parse", "/proc/loadavg begins with no number"))?);
        Ok(())
    }
}
picket_sdk::export!(Load);
