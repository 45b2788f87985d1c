//! A scenario, as it stands in its file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nvml_wrapper_sys::bindings as sys;
use toml::{Table, Value};

/// An error of the library, by its number.
pub type Code = sys::nvmlReturn_t;

pub const OK: Code = sys::nvmlReturn_enum_NVML_SUCCESS;
pub const NOT_SUPPORTED: Code = sys::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
pub const INVALID_ARGUMENT: Code = sys::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
pub const NOT_FOUND: Code = sys::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
pub const LOST: Code = sys::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST;
pub const UNKNOWN: Code = sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN;

/// GPUs of a node, and links of a GPU.
const MOST: i64 = 256;

/// What the whole library shows.
#[derive(Debug)]
pub struct Scenario {
    pub system: Values,
    pub gpus: Vec<Gpu>,
    pub faults: Vec<Fault>,
    pub events: Vec<Event>,
}

#[derive(Debug)]
pub struct Gpu {
    pub values: Values,
    pub links: Vec<Values>,
    pub instances: Vec<Values>,
    pub processes: Vec<Values>,
}

#[derive(Debug)]
pub struct Fault {
    pub call: String,
    pub gpu: Option<u32>,
    pub field: Option<u32>,
    pub code: Code,
    pub hang: bool,
    pub takes: Duration,
}

#[derive(Debug)]
pub struct Event {
    pub id: i64,
    pub gpu: u32,
    pub xid: u64,
    pub after: Duration,
    pub gpu_instance_id: Option<u32>,
}

/// Keys and values of one thing, and the time from which its counters count.
#[derive(Debug, Clone, Default)]
pub struct Values {
    table: Table,
    number: usize,
    since: Duration,
}

impl Scenario {
    pub fn parse(text: &str, written: SystemTime) -> Result<Self, String> {
        let mut root: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let since = written.duration_since(UNIX_EPOCH).unwrap_or_default();
        let values = |table: Table, number: usize| Values { table, number, since };
        let template = table(root.remove("gpu"))?;
        let overrides = tables(root.remove("gpus"))?;
        let count = template.get("count").and_then(Value::as_integer).unwrap_or(0).max(0);
        if count > MOST {
            return Err(format!("{count} GPUs; {MOST} are allowed"));
        }
        let gpus = (0..usize::try_from(count).unwrap_or(0)).map(|number| {
            let mut gpu = template.clone();
            for one in &overrides {
                if one.get("index").and_then(Value::as_integer) == i64::try_from(number).ok() {
                    gpu.extend(one.clone());
                }
            }
            let links = tables(gpu.remove("links"))?;
            let link = table(gpu.remove("link"))?;
            let link_count = gpu.get("link_count").and_then(Value::as_integer).unwrap_or(0);
            if link_count > MOST {
                return Err(format!("{link_count} links; {MOST} are allowed"));
            }
            let links = (0..usize::try_from(link_count).unwrap_or(0)).map(|number| {
                let mut this = link.clone();
                for one in &links {
                    if one.get("link").and_then(Value::as_integer) == i64::try_from(number).ok() {
                        this.extend(one.clone());
                    }
                }
                values(this, number)
            });
            let links = links.collect();
            let list = |key: Option<Value>| -> Result<Vec<Values>, String> {
                Ok(tables(key)?.into_iter().map(|table| values(table, number)).collect())
            };
            let (instances, processes) = (list(gpu.remove("instances"))?, list(gpu.remove("processes"))?);
            Ok(Gpu { values: values(gpu, number), links, instances, processes })
        });
        let gpus = gpus.collect::<Result<_, String>>()?;
        let faults = tables(root.remove("faults"))?.into_iter().map(fault).collect::<Result<_, String>>()?;
        let events = tables(root.remove("events"))?.into_iter().enumerate().map(event);
        let events = events.collect();
        let system = values(table(root.remove("system"))?, 0);
        match root.keys().next() {
            Some(key) => Err(format!("{key} is no key of a scenario")),
            None => Ok(Self { system, gpus, faults, events }),
        }
    }

    /// What this call meets, if anything.
    pub fn fault(&self, call: &str, gpu: Option<u32>, field: Option<u32>) -> Option<&Fault> {
        self.faults.iter().find(|fault| {
            (fault.call == "*" || fault.call == call)
                && (fault.gpu.is_none() || fault.gpu == gpu)
                && fault.field == field
        })
    }
}

impl Values {
    /// Reads every value in every way.
    pub fn try_all(&self) {
        for key in self.table.keys() {
            let _ = (self.number(key), self.u32(key), self.u64(key), self.flag(key), self.text(key));
            if let Ok(inner) = self.inner(key) {
                inner.try_all();
            }
        }
    }

    pub fn number(&self, key: &str) -> Result<f64, Code> {
        match self.table.get(key) {
            Some(Value::Integer(n)) => Ok(*n as f64),
            Some(Value::Float(n)) => Ok(*n),
            Some(Value::Boolean(b)) => Ok(f64::from(u8::from(*b))),
            Some(Value::String(text)) if text == "{i}" => Ok(self.number as f64),
            Some(Value::Table(counter)) => {
                let part = |key: &str| {
                    let value = counter.get(key);
                    value.and_then(|v| v.as_float().or(v.as_integer().map(|n| n as f64))).unwrap_or(0.0)
                };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let seconds = now.saturating_sub(self.since).as_secs_f64();
                Ok((part("start") + part("per_second") * seconds).floor())
            }
            _ => Err(NOT_SUPPORTED),
        }
    }

    pub fn u32(&self, key: &str) -> Result<u32, Code> {
        self.number(key).map(|n| n as u32)
    }

    pub fn u64(&self, key: &str) -> Result<u64, Code> {
        match self.table.get(key) {
            // Whole, where a float would round.
            Some(Value::Integer(n)) => u64::try_from(*n).map_err(|_| UNKNOWN),
            _ => self.number(key).map(|n| n as u64),
        }
    }

    pub fn flag(&self, key: &str) -> Result<u32, Code> {
        self.number(key).map(|n| u32::from(n != 0.0))
    }

    /// `{i}` in it is the number of the GPU, `{x}` the same in hexadecimal.
    pub fn text(&self, key: &str) -> Result<String, Code> {
        match self.table.get(key) {
            Some(Value::String(text)) if text != "n/a" => {
                let number = self.number;
                Ok(text
                    .replace("{i}", &number.to_string())
                    .replace("{x}", &format!("{:02X}", 0x1B + number * 16)))
            }
            _ => Err(NOT_SUPPORTED),
        }
    }

    pub fn inner(&self, key: &str) -> Result<Self, Code> {
        match self.table.get(key) {
            Some(Value::Table(table)) => {
                Ok(Self { table: table.clone(), number: self.number, since: self.since })
            }
            _ => Err(NOT_SUPPORTED),
        }
    }
}

/// The number of a code's word or number.
fn code(value: &Value) -> Result<Code, String> {
    match value {
        Value::Integer(n) => u32::try_from(*n).map_err(|_| format!("{n} is no code")),
        Value::String(word) => match word.as_str() {
            "not-supported" => Ok(NOT_SUPPORTED),
            "no-permission" => Ok(sys::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION),
            "driver-not-loaded" => Ok(sys::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED),
            "gpu-lost" => Ok(LOST),
            "reset-required" => Ok(sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED),
            "version-mismatch" => Ok(sys::nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH),
            "unknown" => Ok(UNKNOWN),
            other => Err(format!("{other} is no code's word; write its number")),
        },
        other => Err(format!("{other} is no code")),
    }
}

fn fault(table: Table) -> Result<Fault, String> {
    let small = |key: &str| table.get(key).and_then(Value::as_integer).and_then(|n| u32::try_from(n).ok());
    let takes = table.get("takes_ms").and_then(Value::as_integer).unwrap_or(0);
    Ok(Fault {
        call: table.get("call").and_then(Value::as_str).unwrap_or("*").to_owned(),
        gpu: small("gpu"),
        field: small("field"),
        code: table.get("code").map_or(Ok(OK), code)?,
        hang: table.get("hang").and_then(Value::as_bool).unwrap_or(false),
        takes: Duration::from_millis(u64::try_from(takes).unwrap_or(0)),
    })
}

fn event((place, table): (usize, Table)) -> Event {
    let number = |key: &str| table.get(key).and_then(Value::as_integer);
    Event {
        id: number("id").unwrap_or_else(|| i64::try_from(place).unwrap_or(0)),
        gpu: number("gpu").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        xid: number("xid").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        after: Duration::from_millis(number("after_ms").and_then(|n| u64::try_from(n).ok()).unwrap_or(0)),
        gpu_instance_id: number("gpu_instance_id").and_then(|n| u32::try_from(n).ok()),
    }
}

fn table(value: Option<Value>) -> Result<Table, String> {
    match value {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table),
        Some(other) => Err(format!("{other} is no table")),
    }
}

fn tables(value: Option<Value>) -> Result<Vec<Table>, String> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.into_iter().map(|value| table(Some(value))).collect(),
        Some(other) => Err(format!("{other} is no list of tables")),
    }
}
