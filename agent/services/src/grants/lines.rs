//! Needs and grants as the TOML that an operator writes: what a refusal and `picket-agent detect` print can be pasted.

use picket_proto::model::PluginId;

use super::{Granted, Need, Scope, SecretRule, UrlRule, get_only};

/// The TOML that grants these needs, each with its reason.
pub fn grant_lines(plugin: &PluginId, needs: &[Need]) -> String {
    let mut out = String::new();
    for need in needs {
        for line in need.why.lines() {
            out.push_str(&format!("# why: {line}\n"));
        }
        out.push_str(&format!("[[plugins.{}.grants]]\n", quoted_key(plugin.as_str())));
        out.push_str(&scope_lines(&need.scope));
        out.push('\n');
    }
    out
}

fn quoted_key(key: &str) -> String {
    if key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        key.to_owned()
    } else {
        string(key)
    }
}

/// A TOML basic string. Rust's own escapes are TOML's but for the braces of `\u{…}`.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub(crate) fn list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|i| string(i)).collect();
    format!("[{}]", quoted.join(", "))
}

fn scope_lines(scope: &Scope) -> String {
    let mut out = format!("capability = \"{}\"\n", scope.capability());
    match scope {
        Scope::Store { bytes } => out.push_str(&format!("bytes = {bytes}\n")),
        Scope::Files { read, filesystems } => {
            if !read.is_empty() {
                out.push_str(&format!("read = {}\n", list(read)));
            }
            if !filesystems.is_empty() {
                out.push_str(&format!("filesystems = {}\n", list(filesystems)));
            }
        }
        Scope::Http { urls } => {
            let rules: Vec<String> = urls.iter().map(|u| format!("  {}", rule_line(u))).collect();
            out.push_str(&tables("urls", &rules));
        }
        Scope::System {} => {}
        Scope::Nvml(scope) => out.push_str(&scope.lines()),
        Scope::Kmsg(scope) => out.push_str(&scope.lines()),
        Scope::Containers(scope) => out.push_str(&scope.lines()),
        Scope::UnixHttp(scope) => out.push_str(&scope.lines()),
        Scope::Command(scope) => out.push_str(&scope.lines()),
        Scope::Logs(scope) => out.push_str(&scope.lines()),
        Scope::ContainersControl(scope) => out.push_str(&scope.lines()),
        Scope::SystemdControl(scope) => out.push_str(&scope.lines()),
        Scope::FilesWrite(scope) => out.push_str(&scope.lines()),
    }
    out
}

/// A TOML list of tables, a line each.
pub(crate) fn tables(key: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return format!("{key} = []\n");
    }
    format!("{key} = [\n{},\n]\n", lines.join(",\n"))
}

fn rule_line(rule: &UrlRule) -> String {
    let mut parts = Vec::new();
    if let Some(scheme) = &rule.scheme {
        parts.push(format!("scheme = {}", string(scheme)));
    }
    parts.push(format!("host = {}", string(&rule.host)));
    if let Some(port) = rule.port {
        parts.push(format!("port = {port}"));
    }
    if let Some(ports) = &rule.ports {
        parts.push(format!("ports = {}", string(ports)));
    }
    if rule.path_prefix != "/" {
        parts.push(format!("path_prefix = {}", string(&rule.path_prefix)));
    }
    if rule.methods != get_only() {
        parts.push(format!("methods = {}", list(&rule.methods)));
    }
    if rule.allow_private {
        parts.push("allow_private = true".to_owned());
    }
    if let Some(secret) = &rule.secret {
        parts.push(secret_line(secret));
    }
    format!("{{ {} }}", parts.join(", "))
}

pub(crate) fn secret_line(secret: &SecretRule) -> String {
    format!(
        "secret = {{ name = {}, header = {}, prefix = {}, file = \"/path/to/the/secret\" }}",
        string(&secret.name),
        string(&secret.header),
        string(&secret.prefix)
    )
}
