//! Which commands a plugin may run, and with what arguments.
//!
//! The operator writes the program and its arguments; the plugin only fills slots, each with a type. A value is checked
//! before it is put in, stays within the one argument that has its slot, and can't begin an option.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Runs};
use crate::grants::{Granted, list, string, tables};

/// The most bytes of a slot's value.
const MAX_VALUE: usize = 4 << 10;
/// The most words of a slot that takes a list.
const MAX_WORDS: usize = 256;
const DEFAULT_TIMEOUT_SECONDS: u32 = 8;
const DEFAULT_OUTPUT_BYTES: u64 = 16 << 20;
/// The longest a command may be let run, and the most that it may write: what is read is passed on, not held.
const MAX_TIMEOUT_SECONDS: u32 = 600;
const MAX_OUTPUT_BYTES: u64 = 1 << 30;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    pub commands: Vec<CommandRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRule {
    /// What the plugin calls it.
    pub name: String,
    /// Absolute. In a manifest's needs: where it usually is.
    pub program: String,
    /// `{slot}` stands for a slot's value, always within one argument; `{{` and `}}` for braces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// What each slot takes: `word` (letters, digits, `_`, `.`, `-`, and a letter, digit or `_` first), `number`
    /// (digits), `words` (words with commas between), `text` (a sentence), or the allowed words themselves, as in `idle|down`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, String>,
    /// The whole environment of the command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// It changes nothing, so an action may run it before it is let change anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads: bool,
    /// After this long it is killed with its children.
    #[serde(default = "default_timeout", skip_serializing_if = "is_default_timeout")]
    pub timeout_seconds: u32,
    /// When it has written more it is killed.
    #[serde(default = "default_output", skip_serializing_if = "is_default_output")]
    pub output_bytes: u64,
}

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_SECONDS
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_default_timeout(seconds: &u32) -> bool {
    *seconds == DEFAULT_TIMEOUT_SECONDS
}

fn default_output() -> u64 {
    DEFAULT_OUTPUT_BYTES
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_default_output(bytes: &u64) -> bool {
    *bytes == DEFAULT_OUTPUT_BYTES
}

/// The rules of a grant, and what runs by them.
#[derive(Debug)]
pub(crate) struct Commands {
    rules: BTreeMap<String, Rule>,
    pub(super) runs: Runs,
}

/// A rule made ready.
#[derive(Debug)]
pub(super) struct Rule {
    pub program: String,
    arguments: Vec<Vec<Piece>>,
    slots: BTreeMap<String, SlotType>,
    pub environment: BTreeMap<String, String>,
    reads: bool,
    pub timeout: Duration,
    pub output_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Slot(String),
}

#[derive(Debug)]
enum SlotType {
    Word,
    Number,
    Words,
    /// A sentence for people.
    Text,
    Choice(Vec<String>),
}

impl Commands {
    /// The rule of that name, and its arguments with the slots filled.
    pub(super) fn find(&self, name: &str, slots: &[(String, String)]) -> Result<(&Rule, Vec<String>), Error> {
        let rule = self
            .rules
            .get(name)
            .ok_or_else(|| Error::Denied(format!("no granted command is called {:?}", shown(name))))?;
        let mut values: BTreeMap<&str, &str> = BTreeMap::new();
        for (slot, value) in slots {
            let Some(takes) = rule.slots.get(slot) else {
                return Err(Error::Invalid(format!("the command {name} has no slot {:?}", shown(slot))));
            };
            takes.check(value).map_err(|why| {
                Error::Invalid(format!("slot {slot} of {name}: {:?} is not allowed: {why}", shown(value)))
            })?;
            if values.insert(slot, value).is_some() {
                return Err(Error::Invalid(format!("slot {slot} of {name} is filled twice")));
            }
        }
        let mut arguments = Vec::with_capacity(rule.arguments.len());
        for pieces in &rule.arguments {
            let mut argument = String::new();
            for piece in pieces {
                match piece {
                    Piece::Text(text) => argument.push_str(text),
                    Piece::Slot(slot) => {
                        let value = values.get(slot.as_str()).ok_or_else(|| {
                            Error::Invalid(format!("slot {slot} of the command {name} is not filled"))
                        })?;
                        argument.push_str(value);
                    }
                }
            }
            arguments.push(argument);
        }
        Ok((rule, arguments))
    }
}

impl Commands {
    /// Whether the operator says of this command that it changes nothing.
    pub(crate) fn reads(&self, name: &str) -> bool {
        self.rules.get(name).is_some_and(|rule| rule.reads)
    }
}

impl SlotType {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "word" => Ok(Self::Word),
            "number" => Ok(Self::Number),
            "words" => Ok(Self::Words),
            "text" => Ok(Self::Text),
            choices if choices.contains('|') => {
                let words: Vec<String> = choices.split('|').map(str::to_owned).collect();
                words.iter().try_for_each(|w| word(w)).map_err(|why| format!("{choices:?}: {why}"))?;
                Ok(Self::Choice(words))
            }
            other => Err(format!(
                "{other:?} is no slot type: word, number, words, text, or the words as in \"a|b\""
            )),
        }
    }

    fn check(&self, value: &str) -> Result<(), String> {
        if value.len() > MAX_VALUE {
            return Err(format!("it is longer than {MAX_VALUE} bytes"));
        }
        match self {
            Self::Word => word(value),
            Self::Number if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
            Self::Number => Err("digits are wanted".to_owned()),
            Self::Words if value.split(',').count() > MAX_WORDS => {
                Err(format!("it has more than {MAX_WORDS} words"))
            }
            Self::Words => value.split(',').try_for_each(word),
            Self::Text => text(value),
            Self::Choice(words) if words.iter().any(|w| w == value) => Ok(()),
            Self::Choice(words) => Err(format!("one of {} is wanted", words.join(", "))),
        }
    }
}

/// A sentence: printable, on one line, and no option where an argument is nothing else.
fn text(value: &str) -> Result<(), String> {
    const MOST: usize = 256;
    if value.trim().is_empty() || value.chars().count() > MOST {
        return Err(format!("1 to {MOST} characters are wanted"));
    }
    if value.starts_with(|c: char| c == '-' || c.is_whitespace()) || value.chars().any(char::is_control) {
        return Err("a text begins with no - and no space, and has no control characters".to_owned());
    }
    Ok(())
}

/// Nothing that a program could take for an option, a path upwards, a list or a pattern.
fn word(text: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    if !bytes.next().is_some_and(inner) {
        return Err("a word begins with a letter, a digit or _".to_owned());
    }
    if !bytes.all(|b| inner(b) || b == b'.' || b == b'-') {
        return Err("a word holds letters, digits, _, . and - only".to_owned());
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

/// An argument's text and slots.
fn pieces(argument: &str) -> Result<Vec<Piece>, String> {
    let (mut found, mut text) = (Vec::new(), String::new());
    let mut rest = argument.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '{' | '}' if rest.peek() == Some(&c) => {
                rest.next();
                text.push(c);
            }
            '{' => {
                let slot: String = rest.by_ref().take_while(|c| *c != '}').collect();
                if slot.is_empty() || !argument.contains(&format!("{{{slot}}}")) {
                    return Err(format!("argument {argument:?}: a slot is written {{name}}, a brace {{{{"));
                }
                if !text.is_empty() {
                    found.push(Piece::Text(std::mem::take(&mut text)));
                }
                found.push(Piece::Slot(slot));
            }
            '}' => return Err(format!("argument {argument:?}: a brace is written }}}}")),
            c => text.push(c),
        }
    }
    if !text.is_empty() || found.is_empty() {
        found.push(Piece::Text(text));
    }
    Ok(found)
}

impl Rule {
    /// Of a program that the host runs by itself.
    pub(super) fn fixed(program: &str, timeout: Duration, output_bytes: u64) -> Self {
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            slots: BTreeMap::new(),
            environment: BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned())]),
            reads: false,
            timeout,
            output_bytes,
        }
    }

    fn new(rule: &CommandRule) -> Result<Self, String> {
        let wrong = |why: String| format!("command {:?}: {why}", rule.name);
        if rule.name.is_empty() {
            return Err("a command has no name".to_owned());
        }
        if !rule.program.starts_with('/') || rule.program.contains('\0') {
            return Err(wrong(format!("`program` {:?} is not an absolute path", rule.program)));
        }
        if rule.arguments.iter().any(|a| a.contains('\0')) {
            return Err(wrong("an argument can't hold a NUL".to_owned()));
        }
        if rule.timeout_seconds == 0 || rule.timeout_seconds > MAX_TIMEOUT_SECONDS {
            return Err(wrong(format!("`timeout_seconds` must be 1 to {MAX_TIMEOUT_SECONDS}")));
        }
        if rule.output_bytes == 0 || rule.output_bytes > MAX_OUTPUT_BYTES {
            return Err(wrong(format!("`output_bytes` must be 1 to {MAX_OUTPUT_BYTES}")));
        }
        for (name, value) in &rule.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(wrong(format!(
                    "`environment`: {name:?} is no variable's name, or its value holds a NUL"
                )));
            }
        }
        let slots: BTreeMap<String, SlotType> = rule
            .slots
            .iter()
            .map(|(name, text)| Ok((name.clone(), SlotType::parse(text).map_err(&wrong)?)))
            .collect::<Result<_, String>>()?;
        let arguments: Vec<Vec<Piece>> =
            rule.arguments.iter().map(|a| pieces(a).map_err(&wrong)).collect::<Result<_, _>>()?;
        let mut unused: Vec<&String> = slots.keys().collect();
        for piece in arguments.iter().flatten() {
            if let Piece::Slot(slot) = piece {
                if !slots.contains_key(slot) {
                    return Err(wrong(format!("`slots` does not say what {{{slot}}} takes")));
                }
                unused.retain(|s| *s != slot);
            }
        }
        if let Some(slot) = unused.first() {
            return Err(wrong(format!("no argument has the slot {{{slot}}}")));
        }
        Ok(Self {
            program: rule.program.clone(),
            arguments,
            slots,
            environment: rule.environment.clone(),
            reads: rule.reads,
            timeout: Duration::from_secs(u64::from(rule.timeout_seconds)),
            output_bytes: rule.output_bytes,
        })
    }
}

impl Granted for Scope {
    type Compiled = Commands;

    fn compile(scopes: &[&Self]) -> Result<Commands, String> {
        let mut rules = BTreeMap::new();
        for rule in scopes.iter().flat_map(|s| &s.commands) {
            if rules.insert(rule.name.clone(), Rule::new(rule)?).is_some() {
                return Err(format!("command {:?} stands there twice", rule.name));
            }
        }
        Ok(Commands { rules, runs: Runs::default() })
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        // The operator's own words for a name count, whatever the author thought of.
        let granted = |name: &str| grants.iter().flat_map(|g| &g.commands).any(|g| g.name == name);
        let rest: Vec<CommandRule> = self.commands.iter().filter(|n| !granted(&n.name)).cloned().collect();
        (!rest.is_empty()).then_some(Self { commands: rest })
    }

    fn example() -> Self {
        let rule = CommandRule {
            name: "sinfo".to_owned(),
            program: "/usr/bin/sinfo".to_owned(),
            arguments: vec!["--json".to_owned()],
            slots: BTreeMap::new(),
            environment: BTreeMap::new(),
            reads: false,
            timeout_seconds: DEFAULT_TIMEOUT_SECONDS,
            output_bytes: DEFAULT_OUTPUT_BYTES,
        };
        Self { commands: vec![rule] }
    }

    fn lines(&self) -> String {
        let table = |map: &BTreeMap<String, String>| {
            let pairs: Vec<String> =
                map.iter().map(|(k, v)| format!("{} = {}", string(k), string(v))).collect();
            format!("{{ {} }}", pairs.join(", "))
        };
        let rules: Vec<String> = self
            .commands
            .iter()
            .map(|r| {
                let mut parts =
                    vec![format!("name = {}", string(&r.name)), format!("program = {}", string(&r.program))];
                if !r.arguments.is_empty() {
                    parts.push(format!("arguments = {}", list(&r.arguments)));
                }
                if !r.slots.is_empty() {
                    parts.push(format!("slots = {}", table(&r.slots)));
                }
                if !r.environment.is_empty() {
                    parts.push(format!("environment = {}", table(&r.environment)));
                }
                if r.reads {
                    parts.push("reads = true".to_owned());
                }
                if !is_default_timeout(&r.timeout_seconds) {
                    parts.push(format!("timeout_seconds = {}", r.timeout_seconds));
                }
                if !is_default_output(&r.output_bytes) {
                    parts.push(format!("output_bytes = {}", r.output_bytes));
                }
                format!("  {{ {} }}", parts.join(", "))
            })
            .collect();
        tables("commands", &rules)
    }
}
