//! One helper process and the pipes to it.

use std::process::Stdio;
use std::time::Duration;

use picket_agent_nvml::{Ask, Tell};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use super::Options;

/// What it told and nobody has looked at yet.
const UNREAD: usize = 64;
/// Writing a question fills no pipe; a helper that does not take it is stopped.
const ASK_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Helper {
    child: Child,
    input: ChildStdin,
    told: mpsc::Receiver<Result<Tell, String>>,
}

impl Helper {
    pub fn start(options: &Options) -> Result<Self, String> {
        let mut command = Command::new(&options.helper);
        command.arg("--timeout-ms").arg(options.timeout.as_millis().to_string());
        if let Some(library) = &options.library {
            command.arg("--library").arg(library);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let cannot = |error: &dyn std::fmt::Display| {
            format!(
                "{} cannot be started: {error}; it belongs beside picket-agent, or `nvml.helper` names it",
                options.helper.display()
            )
        };
        let mut child = command.spawn().map_err(|error| cannot(&error))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(cannot(&"it has no pipes"));
        };
        let (sender, told) = mpsc::channel(UNREAD);
        tokio::spawn(read(output, sender));
        Ok(Self { child, input, told })
    }

    pub async fn ask(&mut self) -> Result<(), String> {
        let frame = Ask::Snapshot.encode();
        match tokio::time::timeout(ASK_WITHIN, self.input.write_all(&frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("picket-nvml cannot be asked: {error}")),
            Err(_) => Err("picket-nvml takes no question".to_owned()),
        }
    }

    /// What it told next; an error is its last word. May be cancelled.
    pub async fn told(&mut self) -> Result<Tell, String> {
        match self.told.recv().await {
            Some(told) => told,
            None => Err("picket-nvml ended".to_owned()),
        }
    }

    /// Kills it. It can take any time to die.
    pub fn abandon(mut self) -> Child {
        // Fails where it has ended already.
        let _ = self.child.start_kill();
        self.child
    }
}

/// Ends with the helper, or when nobody listens any more.
async fn read(mut output: ChildStdout, sender: mpsc::Sender<Result<Tell, String>>) {
    loop {
        let told = frame(&mut output).await;
        let last = told.is_err();
        if sender.send(told).await.is_err() || last {
            return;
        }
    }
}

async fn frame(output: &mut ChildStdout) -> Result<Tell, String> {
    let ended = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "picket-nvml ended".to_owned(),
        _ => format!("picket-nvml cannot be heard: {error}"),
    };
    let mut head = [0; 4];
    output.read_exact(&mut head).await.map_err(ended)?;
    let length = picket_agent_nvml::length(head).map_err(|error| format!("picket-nvml sent {error}"))?;
    let mut frame = vec![0; length];
    output.read_exact(&mut frame).await.map_err(ended)?;
    Tell::decode(&frame).map_err(|error| format!("picket-nvml sent {error}"))
}
