//! What the hub's answers mean: `/api/models/ID` and `/api/models/ID/tree/main`.

use std::collections::BTreeMap;

use picket_sdk::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whether anybody may have the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    Public,
    /// After its owner's terms.
    Gated,
    Private,
    /// Private or not there: the hub does not tell.
    Restricted,
    Absent,
}

impl Access {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Gated => "gated",
            Self::Private => "private",
            Self::Restricted => "restricted",
            Self::Absent => "absent",
        }
    }
}

/// The size of the weights, and where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// The files' sizes, summed.
    Tree(u64),
    /// Computed from how many parameters of which type there are.
    Safetensors(u64),
}

impl Size {
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Tree(bytes) | Self::Safetensors(bytes) => bytes,
        }
    }

    pub const fn source(self) -> &'static str {
        match self {
            Self::Tree(_) => "tree",
            Self::Safetensors(_) => "safetensors",
        }
    }
}

/// What the hub knows of a model; what it doesn't is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub license: Option<String>,
    /// `none`, where its configuration has no quantization.
    pub quantization: Option<String>,
    pub downloads: Option<u64>,
    pub parameters: Option<u64>,
    pub size: Option<Size>,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    downloads: Option<u64>,
    #[serde(default)]
    tags: Vec<String>,
    /// `false`, or how access is had.
    #[serde(default)]
    gated: Value,
    #[serde(default)]
    private: bool,
    #[serde(default, rename = "cardData")]
    card: Value,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    safetensors: Option<Safetensors>,
    #[serde(default)]
    gguf: Option<Gguf>,
}

#[derive(Deserialize)]
struct Safetensors {
    #[serde(default)]
    parameters: BTreeMap<String, u64>,
    #[serde(default)]
    total: Option<u64>,
}

#[derive(Deserialize)]
struct Gguf {
    #[serde(default)]
    total: Option<u64>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    size: u64,
    path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    size: u64,
}

/// Reads both answers; without a listing the size is computed.
///
/// # Errors
/// `malformed`: the first is not what the hub answers.
pub fn read(info: &[u8], tree: Option<&[u8]>) -> Result<(Access, Facts), Failure> {
    let info: Info = serde_json::from_slice(info)
        .map_err(|e| Failure::new("malformed", format!("the hub's answer is not that of its API: {e}")))?;
    let access = match (&info.gated, info.private) {
        (_, true) => Access::Private,
        (Value::Null | Value::Bool(false), false) => Access::Public,
        _ => Access::Gated,
    };
    let quantization = quantization(&info);
    let listed = tree.and_then(|tree| serde_json::from_slice::<Vec<File>>(tree).ok());
    let size = listed.as_deref().and_then(weights).map(Size::Tree);
    let computed = || computed(info.safetensors.as_ref()?, &info.config).map(Size::Safetensors);
    let counted = info.safetensors.as_ref().and_then(|s| s.total.or_else(|| total(&s.parameters)));
    Ok((
        access,
        Facts {
            license: license(&info),
            quantization,
            downloads: info.downloads,
            parameters: counted.or_else(|| info.gguf.as_ref().and_then(|g| g.total)),
            size: size.or_else(computed),
        },
    ))
}

fn total(parameters: &BTreeMap<String, u64>) -> Option<u64> {
    (!parameters.is_empty()).then(|| parameters.values().fold(0_u64, |sum, n| sum.saturating_add(*n)))
}

/// What stands under a key; null where nothing does.
fn at<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(&Value::Null)
}

/// A word for a label: what is longer is no licence's name.
fn word(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= 100).then(|| text.to_owned())
}

fn license(info: &Info) -> Option<String> {
    let said = match at(&info.card, "license") {
        Value::String(text) => word(text),
        Value::Array(list) => {
            let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            word(&list.join(","))
        }
        _ => None,
    };
    match said.as_deref() {
        // One of its own: its name stands elsewhere.
        Some("other") | None => {}
        Some(_) => return said,
    }
    let named = at(&info.card, "license_name").as_str().and_then(word);
    let tagged = || info.tags.iter().find_map(|tag| tag.strip_prefix("license:")).and_then(word);
    named.or(said).or_else(tagged)
}

/// By the model's configuration, else by its tags.
fn quantization(info: &Info) -> Option<String> {
    let config = at(&info.config, "quantization_config");
    if let Some(method) = at(config, "quant_method").as_str().and_then(word) {
        let bits = at(config, "bits").as_u64().or_else(|| {
            let flag = |name: &str| at(config, name).as_bool() == Some(true);
            if flag("load_in_4bit") { Some(4) } else { flag("load_in_8bit").then_some(8) }
        });
        let method = method.to_lowercase();
        return Some(match bits {
            Some(bits) => format!("{method}-{bits}bit"),
            None => method,
        });
    }
    const TAGS: [&str; 14] = [
        "awq",
        "gptq",
        "gguf",
        "exl2",
        "exl3",
        "fp8",
        "nvfp4",
        "mxfp4",
        "bitsandbytes",
        "compressed-tensors",
        "mlx",
        "aqlm",
        "hqq",
        "eetq",
    ];
    let tagged = TAGS.iter().find(|word| info.tags.iter().any(|tag| tag.eq_ignore_ascii_case(word)));
    let bits = info.tags.iter().find(|tag| matches!(tag.as_str(), "4-bit" | "8-bit"));
    match (tagged, bits) {
        (Some(word), Some(bits)) => Some(format!("{word}-{}bit", bits.get(..1).unwrap_or_default())),
        (Some(word), None) => Some((*word).to_owned()),
        (None, Some(bits)) => Some(bits.clone()),
        (None, None) => info.config.is_object().then(|| "none".to_owned()),
    }
}

/// The files that are the model: many listings have the weights twice, in two formats.
fn weights(files: &[File]) -> Option<u64> {
    let size = |file: &File| file.lfs.as_ref().map_or(file.size, |lfs| lfs.size);
    let of = |fits: &dyn Fn(&str) -> bool| -> Vec<u64> {
        files.iter().filter(|f| f.kind != "directory" && fits(&f.path)).map(size).collect()
    };
    let ends = |path: &str, end: &str| path.ends_with(end) && !path.contains('/');
    let sets: [&dyn Fn(&str) -> bool; 3] = [
        &|p| ends(p, ".safetensors") && (p.starts_with("model-") || p == "model.safetensors"),
        &|p| ends(p, ".safetensors"),
        &|p| ends(p, ".bin") && p.starts_with("pytorch_model"),
    ];
    let found = sets.iter().map(|fits| of(fits)).find(|list| !list.is_empty());
    let list = found.or_else(|| {
        // Several of these are the model in several quantizations: nobody knows which is meant.
        let list = of(&|p| ends(p, ".gguf"));
        (list.len() == 1).then_some(list)
    })?;
    list.into_iter().try_fold(0_u64, u64::checked_add).filter(|bytes| *bytes > 0)
}

/// Bytes of the parameters. The hub counts packed ones one by one, so that several lie in one element of their type.
fn computed(safetensors: &Safetensors, config: &Value) -> Option<u64> {
    let quantized = at(config, "quantization_config");
    let method = at(quantized, "quant_method").as_str().unwrap_or_default();
    let packed = match method {
        "gptq" | "awq" => at(quantized, "bits").as_u64(),
        "mxfp4" => Some(4),
        "bitsandbytes" if at(quantized, "load_in_4bit").as_bool() == Some(true) => Some(4),
        _ => None,
    };
    let mut bits = 0_u64;
    for (dtype, count) in &safetensors.parameters {
        let each = match (dtype.as_str(), packed) {
            ("I32" | "U8" | "I8", Some(bits)) => bits,
            ("F64" | "I64" | "U64", _) => 64,
            ("F32" | "I32" | "U32", _) => 32,
            ("F16" | "BF16" | "I16" | "U16", _) => 16,
            ("F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "I8" | "U8" | "BOOL", _) => 8,
            ("F4" | "I4" | "U4", _) => 4,
            _ => return None,
        };
        bits = bits.checked_add(count.checked_mul(each)?)?;
    }
    (bits > 0).then_some(bits.div_ceil(8))
}
