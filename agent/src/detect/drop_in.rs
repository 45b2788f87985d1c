//! What the agent's unit must be given for the plugins that are granted something: a drop-in of systemd.
//!
//! As it is packaged the unit has no device, no group, no capability and nothing to write but its own folders. Each setting here
//! stands below the plugin and the grant that need it; where there is no such grant it is not there. What systemd can't give is said.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use picket_agent_services::grants::{Scope, SecretRule};

use crate::config::{self, Config};

/// Where packages put the unit.
pub(crate) const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
pub(crate) const UNIT: &str = "picket-agent.service";
/// The driver's devices, by the names that its versions give them; a name that there is not is passed over.
const NVIDIA: [&str; 5] =
    ["char-nvidia", "char-nvidia-frontend", "char-nvidia-uvm", "char-nvidia-caps", "char-nvidia-nvswitch"];

/// Where the drop-in belongs; none where the agent is not run by the unit of the packages with the file of the packages.
pub fn target(config_file: &Path, root: &Path) -> Option<PathBuf> {
    let packaged = UNITS.iter().any(|folder| root.join(folder.trim_start_matches('/')).join(UNIT).is_file());
    let ours = config_file == Path::new(config::DEFAULT_FILE);
    (packaged && ours).then(|| root.join(format!("etc/systemd/system/{UNIT}.d/50-detected.conf")))
}

/// Its text, for the grants that are in force; none where the unit is enough as it is. `root` is `/`, or a test's folder.
pub fn text(config: &Config, root: &Path) -> Option<String> {
    let mut unit =
        Unit { root, own: [config.state_dir.clone(), config.cache_dir.clone()], parts: Vec::new() };
    for (id, plugin) in config.plugins.iter().filter(|(_, plugin)| plugin.enabled) {
        for scope in &plugin.grants {
            unit.grant(id.as_str(), scope);
        }
    }
    unit.text()
}

/// Settings that together serve one purpose, for one plugin.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    why: String,
    settings: Vec<String>,
}

struct Unit<'a> {
    root: &'a Path,
    /// What it may write in any case.
    own: [PathBuf; 2],
    parts: Vec<Part>,
}

/// How a user without any right comes to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Open,
    /// As a member of these groups.
    Groups(BTreeSet<u32>),
    Closed,
}

impl Unit<'_> {
    fn grant(&mut self, plugin: &str, scope: &Scope) {
        match scope {
            Scope::Nvml(_) => self.nvidia(plugin),
            Scope::Kmsg(_) => {
                let open = ["PrivateDevices=no", "DeviceAllow=/dev/kmsg r", "ProtectKernelLogs=no"];
                let settings = open.map(str::to_owned).into_iter().chain(capability("CAP_SYSLOG")).collect();
                self.add(format!("{plugin}: kernel messages"), settings);
            }
            Scope::Containers(scope) => self.sockets(plugin, scope.sockets.iter()),
            Scope::ContainersControl(scope) => self.sockets(plugin, scope.sockets.iter()),
            Scope::UnixHttp(scope) => {
                self.sockets(plugin, scope.sockets.iter().map(|rule| &rule.path));
                self.secrets(plugin, scope.sockets.iter().filter_map(|rule| rule.secret.as_ref()));
            }
            Scope::Http { urls } => self.secrets(plugin, urls.iter().filter_map(|rule| rule.secret.as_ref())),
            Scope::Logs(scope) => {
                if !scope.units.is_empty() {
                    let setting = "SupplementaryGroups=systemd-journal".to_owned();
                    self.add(format!("{plugin}: the journal"), vec![setting]);
                }
                scope.files.iter().for_each(|pattern| self.log_files(plugin, pattern));
                self.sockets(plugin, scope.containers.iter().flat_map(|containers| &containers.sockets));
            }
            Scope::Command(scope) => {
                for rule in &scope.commands {
                    let program = Path::new(&rule.program).file_name().unwrap_or_default().to_string_lossy();
                    if program.starts_with("nvidia-") {
                        self.nvidia(plugin);
                    }
                    if program == "nvidia-smi" && !rule.reads {
                        self.todo(
                            plugin,
                            "nvidia-smi changes a GPU for root alone: this agent's user is not root",
                        );
                    }
                    if matches!(&*program, "scontrol" | "scancel") && !rule.reads {
                        let how = "sacctmgr add user picket account=… adminlevel=operator";
                        self.todo(plugin, &format!("Slurm must know the agent's user as an operator: {how}"));
                    }
                }
            }
            Scope::SystemdControl(scope) if !scope.verbs.is_empty() => self.todo(
                plugin,
                "polkit must let the user picket manage these units: see docs/install.md#actions-of-systemd",
            ),
            Scope::FilesWrite(scope) => {
                let folders = scope.delete.iter().map(|pattern| fixed(pattern));
                for folder in folders.chain(scope.bundle_dir.clone()) {
                    self.temporary(plugin, &folder);
                    if !self.own.iter().any(|own| folder.starts_with(own)) {
                        let setting = format!("ReadWritePaths={}", word(&format!("-{}", folder.display())));
                        self.add(format!("{plugin}: {} is written", folder.display()), vec![setting]);
                    }
                }
            }
            Scope::Files { read, .. } => {
                read.iter().for_each(|pattern| self.temporary(plugin, &fixed(pattern)))
            }
            Scope::SystemdControl(_) | Scope::Store { .. } | Scope::System {} => {}
        }
    }

    fn nvidia(&mut self, plugin: &str) {
        let mut settings = vec!["PrivateDevices=no".to_owned()];
        settings.extend(NVIDIA.iter().map(|device| format!("DeviceAllow={device} rw")));
        // Whose a process on a GPU is.
        settings.push("PrivateUsers=no".to_owned());
        self.add(format!("{plugin}: the NVIDIA driver's devices"), settings);
    }

    fn sockets<'s>(&mut self, plugin: &str, sockets: impl Iterator<Item = &'s String>) {
        for socket in sockets {
            self.temporary(plugin, Path::new(socket));
            let Ok(meta) = std::fs::metadata(self.at(socket)) else { continue };
            let why = format!("{plugin}: {socket}");
            match way(&meta, 0o2) {
                Way::Open => {}
                Way::Groups(groups) => self.add(why, self.members(&groups)),
                Way::Closed => {
                    self.todo(
                        plugin,
                        &format!("{socket} is root's alone: give it a group that the agent's user is in"),
                    );
                }
            }
        }
    }

    fn secrets<'s>(&mut self, plugin: &str, secrets: impl Iterator<Item = &'s SecretRule>) {
        for file in secrets.filter_map(|secret| secret.file.as_ref()) {
            if self.way_to(file, true) != Way::Open {
                let todo = format!(
                    "{0} can't be read by the agent's user: chgrp picket {0} and chmod 640 {0}; or LoadCredential= here",
                    file.display()
                );
                self.todo(plugin, &todo);
            }
        }
    }

    /// The unit has folders of its own for what is temporary.
    fn temporary(&mut self, plugin: &str, folder: &Path) {
        if ["/tmp", "/var/tmp"].iter().any(|temporary| folder.starts_with(temporary)) {
            self.add(format!("{plugin}: {}", folder.display()), vec!["PrivateTmp=no".to_owned()]);
        }
    }

    fn log_files(&mut self, plugin: &str, pattern: &str) {
        let folder = fixed(pattern);
        self.temporary(plugin, &folder);
        let why = format!("{plugin}: {pattern}");
        match self.way_to(&folder, true) {
            Way::Open => {}
            Way::Groups(groups) => self.add(why, self.members(&groups)),
            // All files of the node can be read by it; what of them is read is the grant's to say.
            Way::Closed => {
                self.add(why, capability("CAP_DAC_READ_SEARCH"));
            }
        }
    }

    /// To read a file or list a folder: through all folders above it.
    fn way_to(&self, path: &Path, read: bool) -> Way {
        let mut groups = BTreeSet::new();
        for (nth, place) in path.ancestors().enumerate() {
            let Ok(meta) = std::fs::metadata(self.at(&place.to_string_lossy())) else { continue };
            let bit = if nth == 0 && read { 0o4 } else { 0o1 };
            match way(&meta, bit) {
                Way::Open => {}
                Way::Groups(more) => groups.extend(more),
                Way::Closed => return Way::Closed,
            }
        }
        if groups.is_empty() { Way::Open } else { Way::Groups(groups) }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// By their names where they have one: systemd takes numbers too.
    fn members(&self, groups: &BTreeSet<u32>) -> Vec<String> {
        let known = std::fs::read_to_string(self.at("/etc/group")).unwrap_or_default();
        let name = |gid: &u32| {
            let found = known.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                (fields.nth(1)?.parse() == Ok(*gid)).then(|| name.to_owned())
            });
            format!("SupplementaryGroups={}", found.unwrap_or_else(|| gid.to_string()))
        };
        groups.iter().map(name).collect()
    }

    /// What is left to a person.
    fn todo(&mut self, plugin: &str, what: &str) {
        self.add(format!("to do for {plugin}: {what}"), Vec::new());
    }

    fn add(&mut self, why: String, settings: Vec<String>) {
        let part = Part { why, settings };
        if !self.parts.contains(&part) {
            self.parts.push(part);
        }
    }

    fn text(self) -> Option<String> {
        if self.parts.is_empty() {
            return None;
        }
        let mut out = String::from(
            "# What `picket-agent detect` gives the agent beyond its unit, for the plugins that are granted something. Look through it:\n\
             # each setting opens what the unit closes. Then: systemctl daemon-reload && systemctl restart picket-agent\n\n[Service]\n",
        );
        let mut said = BTreeSet::new();
        for part in self.parts {
            let _ = writeln!(out, "# {}", one_line(&part.why));
            for setting in part.settings {
                // A % begins a specifier.
                let setting = one_line(&setting).replace('%', "%%");
                if said.insert(setting.clone()) {
                    let _ = writeln!(out, "{setting}");
                }
            }
        }
        Some(out)
    }
}

/// A capability that the agent has from its start; it holds outside of a user namespace alone.
fn capability(name: &str) -> Vec<String> {
    let sets = ["CapabilityBoundingSet", "AmbientCapabilities"].map(|set| format!("{set}={name}"));
    sets.into_iter().chain(["PrivateUsers=no".to_owned()]).collect()
}

/// `bit` of the three rights.
fn way(meta: &std::fs::Metadata, bit: u32) -> Way {
    if meta.mode() & bit != 0 {
        Way::Open
    } else if meta.mode() & (bit << 3) != 0 && meta.gid() != 0 {
        Way::Groups(BTreeSet::from([meta.gid()]))
    } else {
        Way::Closed
    }
}

/// The folder before the first star; of a pattern without one, the file itself.
fn fixed(pattern: &str) -> PathBuf {
    match pattern.split_once('*') {
        None => PathBuf::from(pattern),
        Some((before, _)) => {
            let folder = before.rsplit_once('/').map_or("/", |(folder, _)| folder);
            PathBuf::from(if folder.is_empty() { "/" } else { folder })
        }
    }
}

/// A word of a list, as systemd.syntax(7) reads it; a % is the writer's to double.
fn word(text: &str) -> String {
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\\')) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        toml::from_str(text).unwrap()
    }

    fn of(root: &Path, grants: &[&str]) -> Option<String> {
        let own = [PathBuf::from("/var/lib/picket-agent"), PathBuf::from("/var/cache/picket-agent")];
        let mut unit = Unit { root, own, parts: Vec::new() };
        for grant in grants {
            unit.grant("p", &scope(grant));
        }
        unit.text()
    }

    fn file(root: &Path, path: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn folder(root: &Path, path: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Each kind of grant, and a line that must be there; none: the unit is enough.
    #[test]
    fn a_grant_gets_what_it_needs() {
        let root = tempfile::tempdir().unwrap();
        folder(root.path(), "/", 0o755);
        folder(root.path(), "/var", 0o755);
        folder(root.path(), "/var/log", 0o755);
        folder(root.path(), "/var/lib", 0o755);
        folder(root.path(), "/var/lib/docker/containers", 0o700);
        file(root.path(), "/run/open.sock", 0o666);
        file(root.path(), "/run/closed.sock", 0o600);
        file(root.path(), "/etc/picket/key", 0o600);
        folder(root.path(), "/etc/picket", 0o755);
        folder(root.path(), "/etc", 0o755);
        folder(root.path(), "/run", 0o755);
        for (grant, line) in [
            ("capability = 'system'", None),
            ("capability = 'files'\nread = ['/proc/**']", None),
            ("capability = 'store'\nbytes = 1", None),
            ("capability = 'nvml'", Some("DeviceAllow=char-nvidia rw")),
            ("capability = 'nvml'", Some("PrivateDevices=no")),
            ("capability = 'kmsg'\ncontaining = ['*']", Some("AmbientCapabilities=CAP_SYSLOG")),
            ("capability = 'kmsg'\ncontaining = ['*']", Some("PrivateUsers=no")),
            ("capability = 'logs'\nunits = ['*']", Some("SupplementaryGroups=systemd-journal")),
            ("capability = 'logs'\nfiles = ['/var/log/*.log']", None),
            (
                "capability = 'logs'\nfiles = ['/var/lib/docker/containers/*/*-json.log']",
                Some("AmbientCapabilities=CAP_DAC_READ_SEARCH"),
            ),
            ("capability = 'containers'\nsockets = ['/run/open.sock']\nlabels = ['*']", None),
            (
                "capability = 'containers'\nsockets = ['/run/closed.sock']\nlabels = ['*']",
                Some("# to do for p: /run/closed.sock is root's alone"),
            ),
            ("capability = 'files'\nread = ['/tmp/textfiles/*.prom']", Some("PrivateTmp=no")),
            ("capability = 'files-write'\ndelete = ['/var/tmp/cores/**/*.core']", Some("PrivateTmp=no")),
            (
                "capability = 'files-write'\ndelete = ['/var/tmp/cores/**/*.core']",
                Some("ReadWritePaths=-/var/tmp/cores"),
            ),
            ("capability = 'files-write'\nbundle_dir = '/var/lib/picket-agent/bundles'", None),
            (
                "capability = 'systemd-control'\nunits = ['a.service']\nverbs = ['restart']",
                Some("# to do for p: polkit"),
            ),
            ("capability = 'systemd-control'\nunits = ['a.service']", None),
        ] {
            let text = of(root.path(), &[grant]);
            match (line, &text) {
                (None, None) => {}
                (Some(line), Some(text)) => {
                    assert!(text.lines().any(|l| l.starts_with(line)), "{grant}: {text}")
                }
                _ => panic!("{grant}: {text:?}"),
            }
        }
    }

    #[test]
    fn groups_have_their_names() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/group"), "root:x:0:\ndocker:x:998:someone\n").unwrap();
        let unit = Unit { root: root.path(), own: [PathBuf::new(), PathBuf::new()], parts: Vec::new() };
        let members = unit.members(&BTreeSet::from([998, 4321]));
        assert_eq!(members, ["SupplementaryGroups=docker", "SupplementaryGroups=4321"]);
    }

    /// What two plugins need stands once, and no text of a configuration becomes a setting.
    #[test]
    fn each_setting_once() {
        let root = tempfile::tempdir().unwrap();
        let odd = "capability = 'files-write'\ndelete = [\"/a\\nUser=root/%u/*\"]";
        let text = of(root.path(), &["capability = 'nvml'", "capability = 'kmsg'\ncontaining = ['*']", odd])
            .unwrap();
        assert_eq!(text.matches("PrivateDevices=no").count(), 1, "{text}");
        assert!(text.lines().any(|line| line == r#"ReadWritePaths="-/a User=root/%%u""#), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("User=")), "{text}");
    }

    #[test]
    fn a_path_with_odd_characters_stays_one_path() {
        let root = tempfile::tempdir().unwrap();
        for (folder, setting) in [
            ("/srv/plain-1.2_3", "ReadWritePaths=-/srv/plain-1.2_3"),
            ("/srv/two words", r#"ReadWritePaths="-/srv/two words""#),
            ("/srv/100%h", "ReadWritePaths=-/srv/100%%h"),
            (r#"/srv/a"b'c"#, r#"ReadWritePaths="-/srv/a\"b'c""#),
            (r"/srv/a\b\", r#"ReadWritePaths="-/srv/a\\b\\""#),
        ] {
            let grant = toml::Value::from(format!("{folder}/*"));
            let text =
                of(root.path(), &[&format!("capability = 'files-write'\ndelete = [{grant}]")]).unwrap();
            assert!(text.lines().any(|line| line == setting), "{folder}: {text}");
        }
    }

    #[test]
    fn only_beside_the_packaged_unit_and_configuration() {
        let root = tempfile::tempdir().unwrap();
        let packaged = Path::new(config::DEFAULT_FILE);
        assert_eq!(target(packaged, root.path()), None);
        file(root.path(), "/usr/lib/systemd/system/picket-agent.service", 0o644);
        assert_eq!(target(Path::new("/tmp/agent.toml"), root.path()), None);
        let place = root.path().join("etc/systemd/system/picket-agent.service.d/50-detected.conf");
        assert_eq!(target(packaged, root.path()), Some(place));
    }

    #[test]
    fn folders_of_patterns() {
        for (pattern, folder) in [
            ("/var/log/*.log", "/var/log"),
            ("/var/log/pods/*/*/*.log", "/var/log/pods"),
            ("/var/log/a.log", "/var/log/a.log"),
            ("/*", "/"),
        ] {
            assert_eq!(fixed(pattern), Path::new(folder), "{pattern}");
        }
    }
}
