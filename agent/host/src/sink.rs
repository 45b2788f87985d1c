//! Where a plugin's samples go: the trait that the agent's collector implements.

use picket_proto::model::{Family, Labels, Part};
use picket_proto::v1;

use crate::lines::LogRecord;

/// Takes what one plugin produced. Called from [`crate::Plugin::collect`] alone, after the guest's call has ended
/// (well or by a limit), in this order: definitions, points, timed points, retirements, events, failures.
/// Everything is checked: names are valid, numbers were defined, no series stands in a collect twice, no value is NaN.
///
/// The numbers of families and series are the host's, dense from 0 upward within one generation.
pub trait SampleSink: Send {
    /// A new instance of the plugin: the numbers of earlier generations are void.
    fn begin(&mut self, generation: u64);

    fn family(&mut self, id: u32, family: &Family);

    /// # Errors
    /// Why the series can't be taken, for a person: its family clashes with another plugin's, say. The host drops the
    /// points of such a series and reports a failure with the reason `refused`.
    fn series(&mut self, id: u32, family: u32, part: Part, labels: &Labels) -> Result<(), String>;

    /// Values of now.
    fn points(&mut self, points: &[(u32, f64)]);

    /// Values with their times, in milliseconds since the Unix epoch.
    fn timed_points(&mut self, points: &[(u32, f64, i64)]);

    /// These series are no more.
    fn retire(&mut self, ids: &[u32]);

    /// Something happened. The plugin's name is filled in; a `subject_kind` of `node` with an empty id is the node.
    fn event(&mut self, event: v1::Event);

    /// How many bytes of log lines would be kept now; 0: none, and the plugin's logs are not read.
    fn log_room(&mut self) -> u64 {
        0
    }

    /// The log lines of a collect that ended well, and where reading goes on after them: kept together or not at all.
    ///
    /// # Errors
    /// Why they were not kept, for a person. They are read again.
    fn logs(&mut self, record: LogRecord) -> Result<(), String> {
        drop(record);
        Err("log lines are not kept here".to_owned())
    }

    /// Something could not be read or was refused; at most once a reason and collect.
    fn fail(&mut self, reason: &str, message: &str);
}
