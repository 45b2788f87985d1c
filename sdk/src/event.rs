//! Events: things that happened, beside the values.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// A thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub(crate) kind: String,
    pub(crate) severity: Severity,
    pub(crate) subject: (String, String),
    pub(crate) message: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) key: String,
    pub(crate) clear: bool,
    pub(crate) timestamp_ms: Option<u64>,
}

impl Event {
    /// `kind` is a dotted word (`gpu.xid`), `message` one line for a person. It is about the node until
    /// [`Self::about`] says otherwise.
    pub fn new(kind: impl Into<String>, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            severity,
            subject: ("node".to_owned(), String::new()),
            message: message.into(),
            attributes: Vec::new(),
            key: String::new(),
            clear: false,
            timestamp_ms: None,
        }
    }

    /// The end of the condition that an earlier event of this `kind` named by [`Self::key`].
    pub fn ended(kind: impl Into<String>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), clear: true, ..Self::new(kind, Severity::Info, message) }
    }

    /// What it is about: a kind (`gpu`, `container`, `job`) and its name.
    #[must_use]
    pub fn about(mut self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        self.subject = (kind.into(), id.into());
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Names the condition, so that [`Event::ended`] can end it.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// When it happened, in milliseconds since the Unix epoch; else now.
    #[must_use]
    pub fn at(mut self, timestamp_ms: u64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// What it says, for tests.
    pub fn view(&self) -> EventView<'_> {
        EventView {
            kind: &self.kind,
            severity: self.severity,
            subject: (&self.subject.0, &self.subject.1),
            message: &self.message,
            attributes: &self.attributes,
            key: &self.key,
            clear: self.clear,
            timestamp_ms: self.timestamp_ms,
        }
    }
}

/// What an [`Event`] says; see [`Event::view`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct EventView<'a> {
    pub kind: &'a str,
    pub severity: Severity,
    /// Kind and name.
    pub subject: (&'a str, &'a str),
    pub message: &'a str,
    pub attributes: &'a [(String, String)],
    pub key: &'a str,
    pub clear: bool,
    pub timestamp_ms: Option<u64>,
}

impl EventView<'_> {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}
