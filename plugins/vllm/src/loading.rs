//! How far a server is with loading its model, by the lines that it logs.
//!
//! The texts are vLLM's own (0.6 to 0.32; both engines). A phase is only ever followed by a later one: with several
//! workers the lines of one phase come several times, between those of the next. A progress bar writes its line over and
//! over, with carriage returns or with newlines.

/// What a server does before it answers, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Starting,
    Weights,
    Compile,
    KvCache,
    GraphCapture,
    Warmup,
    Ready,
}

/// The words of the label `phase`.
pub const PHASES: [&str; 7] =
    ["starting", "weights", "compile", "kv-cache", "graph-capture", "warmup", "ready"];

impl Phase {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Weights => "weights",
            Self::Compile => "compile",
            Self::KvCache => "kv-cache",
            Self::GraphCapture => "graph-capture",
            Self::Warmup => "warmup",
            Self::Ready => "ready",
        }
    }
}

/// What a line tells, by a part of it.
const SIGNS: [(&str, Phase); 22] = [
    ("Starting to load model", Phase::Weights),
    ("Loading model from scratch", Phase::Weights),
    ("checkpoint shards:", Phase::Weights),
    ("Loading weights took", Phase::Weights),
    ("Loading model weights took", Phase::Weights),
    ("Model loading took", Phase::Weights),
    ("for vLLM's torch.compile", Phase::Compile),
    ("Dynamo bytecode transform time", Phase::Compile),
    ("Compiling a graph", Phase::Compile),
    ("torch.compile takes", Phase::Compile),
    ("Memory profiling takes", Phase::KvCache),
    ("Available KV cache memory", Phase::KvCache),
    ("KV cache size:", Phase::KvCache),
    ("# cuda blocks", Phase::KvCache),
    ("Capturing CUDA graph", Phase::GraphCapture),
    ("Capturing cudagraphs", Phase::GraphCapture),
    ("Capturing the model for CUDA graphs", Phase::GraphCapture),
    ("Graph capturing finished", Phase::Warmup),
    ("init engine", Phase::Warmup),
    ("Waiting for application startup", Phase::Warmup),
    ("Application startup complete", Phase::Ready),
    ("Uvicorn running on", Phase::Ready),
];

/// After one of these the server will not come up, though its process may hang about.
const FAILURES: [&str; 3] =
    ["Engine core initialization failed", "EngineCore failed to start", "Engine process failed to start"];

/// What the lines so far have told.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub phase: Phase,
    /// Of the phase, 0 to 1, where it says so.
    pub ratio: Option<f64>,
    /// The line that tells of a failure.
    pub failure: Option<String>,
    /// When the server was ready, in nanoseconds since the Unix epoch.
    pub ready_ns: Option<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { phase: Phase::Starting, ratio: None, failure: None, ready_ns: None }
    }
}

impl Progress {
    pub fn line(&mut self, text: &str, timestamp_ns: u64) {
        for part in text.split('\r') {
            self.part(part, timestamp_ns);
        }
    }

    fn part(&mut self, text: &str, timestamp_ns: u64) {
        if FAILURES.iter().any(|f| text.contains(f)) {
            self.failure = Some(text.chars().take(200).collect());
            return;
        }
        let Some((sign, phase)) = SIGNS.iter().find(|(sign, _)| text.contains(sign)) else { return };
        if *phase < self.phase {
            return;
        }
        if *phase > self.phase {
            self.phase = *phase;
            self.ratio = None;
        }
        if *phase == Phase::Ready && self.ready_ns.is_none() {
            self.ready_ns = Some(timestamp_ns);
        }
        match *sign {
            "Loading weights took" | "Loading model weights took" | "Model loading took" => {
                self.ratio = Some(1.0)
            }
            "checkpoint shards:" | "Capturing CUDA graph" => self.ratio = percent(text).or(self.ratio),
            _ => {}
        }
    }
}

/// The first `25%` of a line.
fn percent(text: &str) -> Option<f64> {
    let (before, _) = text.split_once('%')?;
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    let value: f64 = digits.parse().ok()?;
    (value <= 100.0).then_some(value / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(log: &str) -> Vec<(Phase, Option<f64>)> {
        let mut progress = Progress::default();
        let mut seen = Vec::new();
        for (i, line) in log.lines().enumerate() {
            progress.line(line, i as u64);
            let now = (progress.phase, progress.ratio);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        seen
    }

    /// Two workers of the second engine on GPUs.
    #[test]
    fn a_whole_start() {
        let log = include_str!("../tests/fixtures/startup.log");
        use Phase as P;
        assert_eq!(
            after(log),
            [
                (P::Starting, None),
                (P::Weights, None),
                (P::Weights, Some(0.0)),
                (P::Weights, Some(0.25)),
                (P::Weights, Some(1.0)),
                (P::Compile, None),
                (P::KvCache, None),
                (P::GraphCapture, Some(0.5)),
                (P::GraphCapture, Some(1.0)),
                (P::Warmup, None),
                (P::Ready, None),
            ]
        );
    }

    #[test]
    fn a_bar_in_one_line() {
        let log = "Loading safetensors checkpoint shards:   0% Completed | 0/4\rLoading safetensors checkpoint shards:  75% Completed | 3/4 [00:01<00:00]";
        assert_eq!(after(log), [(Phase::Weights, Some(0.75))]);
    }

    #[test]
    fn a_start_that_fails() {
        let mut progress = Progress::default();
        progress.line(
            "(EngineCore_DP0 pid=212) ERROR 10-06 12:00:00 [core.py:708] EngineCore failed to start.",
            1,
        );
        assert!(progress.failure.is_some());
        assert_eq!(progress.phase, Phase::Starting);
    }

    proptest::proptest! {
        #[test]
        fn any_line(text in ".{0,200}") {
            Progress::default().line(&text, 0);
        }
    }
}
