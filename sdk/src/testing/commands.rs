//! The twin of `command`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::command::{CommandError, Output};

type Answer = Rc<RefCell<dyn FnMut(&str, &[(&str, &str)]) -> Result<Output, CommandError>>>;

/// As many as a node allows.
const MAX_RUNS: usize = 4;

#[derive(Default)]
pub(crate) struct Commands {
    pub answer: Option<Answer>,
    /// Those that run where effects are refused.
    pub reads: std::collections::BTreeSet<String>,
    last: u32,
    runs: BTreeMap<u32, (Output, usize)>,
}

impl Commands {
    pub fn started(&mut self, output: Output) -> Result<u32, CommandError> {
        if self.runs.len() >= MAX_RUNS {
            return Err(CommandError::Busy(format!("{MAX_RUNS} are running already")));
        }
        self.last += 1;
        self.runs.insert(self.last, (output, 0));
        Ok(self.last)
    }

    pub fn read(&mut self, run: u32, most: u32) -> Result<Vec<u8>, CommandError> {
        let (output, at) = self.runs.get_mut(&run).ok_or_else(|| unknown(run))?;
        let end = output.stdout.len().min(*at + most as usize);
        let bytes = output.stdout.get(*at..end).unwrap_or_default().to_vec();
        *at = end;
        Ok(bytes)
    }

    pub fn end(&mut self, run: u32) -> Result<Output, CommandError> {
        let (output, at) = self.runs.remove(&run).ok_or_else(|| unknown(run))?;
        let status = if at < output.stdout.len() { -9 } else { output.status };
        Ok(Output { status, stdout: Vec::new(), stderr: output.stderr })
    }

    pub fn call_ended(&mut self) {
        self.runs.clear();
    }
}

fn unknown(run: u32) -> CommandError {
    CommandError::Invalid(format!("there is no run {run}"))
}
