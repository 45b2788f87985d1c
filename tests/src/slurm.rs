//! A real Slurm cluster on loopback, in the test's folder: munged, slurmctld, four slurmd with eight pretended GPUs each,
//! slurmrestd. It needs root (nodes of devices, the daemons' users). An older one runs from the folder that it was unpacked to, a
//! newer one, which wants a newer C library, by `chroot` into its own.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Daemon;
use crate::{Test, eventually, free_port, repository, skip};

/// Whoever runs slurmrestd, which does not run as root.
const NOBODY: u32 = 65534;

pub struct Slurm {
    tree: PathBuf,
    /// Where its state lies, as its programs see it.
    inside: PathBuf,
    /// As this test sees it.
    folder: PathBuf,
    chroot: bool,
    controller: Option<Daemon>,
    port: u16,
    daemons: Vec<Daemon>,
}

impl Slurm {
    /// Four nodes, each with two processors and eight GPUs; none, said by name, where it can't run.
    pub async fn start(test: &Test) -> Result<Option<Self>> {
        Self::start_with(test, 0).await
    }

    /// And as many more that the controller knows of and that are down.
    pub async fn start_with(test: &Test, more: usize) -> Result<Option<Self>> {
        let Some(mut slurm) = Self::prepare(test, "slurm", false)? else { return Ok(None) };
        if more > 0 {
            let path = slurm.folder.join("slurm.conf");
            let mut config = std::fs::read_to_string(&path)?;
            config = config.replace(
                "PartitionName=",
                &format!(
                    "NodeName=down[1-{more}] NodeAddr=127.0.0.1 Port=1 CPUs=64 RealMemory=1000000 Gres=gpu:h100:8 State=DOWN \
                     Reason=\"not bought yet\"\nSlurmdTimeout=0\nPartitionName=",
                ),
            );
            std::fs::write(&path, config)?;
        }
        slurm.start_controller(test)?;
        for number in 1..=4 {
            let mut command = slurm.daemon("slurmd");
            command.args(["-D", "-N", &format!("gpu{number}"), "-d"]);
            command.arg(slurm.tree.join("usr/sbin/slurmstepd"));
            slurm.daemons.push(Daemon::start(test, &format!("slurmd-{number}"), &mut command)?);
        }
        eventually("four nodes are idle", || async {
            let idle = slurm.run("sinfo", &["-h", "-N", "-o", "%T"])?;
            let count = idle.lines().filter(|l| *l == "idle").count();
            ensure!(count == 4, "{count} are idle");
            Ok(())
        })
        .await?;
        Ok(Some(slurm))
    }

    /// A controller of a version with metrics of its own, and no nodes behind it.
    pub async fn start_new_controller(test: &Test) -> Result<Option<Self>> {
        let Some(mut slurm) = Self::prepare(test, "slurm-new", true)? else { return Ok(None) };
        slurm.start_controller(test)?;
        eventually("the controller answers", || async { slurm.run("scontrol", &["ping"]).map(drop) }).await?;
        Ok(Some(slurm))
    }

    fn prepare(test: &Test, part: &str, chroot: bool) -> Result<Option<Self>> {
        let Some(tree) = test.part(part) else { return Ok(None) };
        if !rustix::process::geteuid().is_root() {
            skip("a Slurm cluster needs root");
            return Ok(None);
        }
        let tree = tree.canonicalize()?;
        let inside = if chroot {
            Path::new("/run").join(test.folder().file_name().context("a folder with no name")?)
        } else {
            test.folder().join("slurm")
        };
        let folder = if chroot { tree.join(inside.strip_prefix("/")?) } else { inside.clone() };
        for name in ["munge", "run", "state", "spool", "dev", "rest"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        name_daemons(&tree)?;
        if chroot {
            furnish(&tree)?;
        }
        let mut slurm =
            Self { tree, inside, folder, chroot, controller: None, port: free_port()?, daemons: Vec::new() };
        slurm.write_config()?;
        let mut munged = slurm.daemon("munged");
        let at = |name: &str| slurm.inside.join("munge").join(name);
        munged.args(["--foreground", "--force"]);
        for (option, file) in [
            ("key-file", "munge.key"),
            ("socket", "munge.socket"),
            ("pid-file", "munged.pid"),
            ("seed-file", "seed"),
        ] {
            munged.arg(format!("--{option}={}", at(file).display()));
        }
        slurm.daemons.push(Daemon::start(test, "munged", &mut munged)?);
        Ok(Some(slurm))
    }

    fn write_config(&self) -> Result<()> {
        let at = |name: &str| self.folder.join(name);
        for (file, length) in [("munge/munge.key", 1024), ("jwt.key", 32)] {
            let mut bytes = vec![0; length];
            std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
            std::fs::write(at(file), bytes)?;
            private(&at(file))?;
        }
        // Slurm wants character devices; these are never opened.
        for gpu in 0..8 {
            let number = gpu.to_string();
            make_device(&at("dev").join(format!("nvidia{number}")), &["195", &number])?;
        }
        let d = self.inside.display();
        std::fs::write(
            at("gres.conf"),
            format!("AutoDetect=off\nNodeName=gpu[1-4] Name=gpu Type=h100 File={d}/dev/nvidia[0-7]\n"),
        )?;
        let ports: Vec<String> = (0..4).map(|_| free_port().map(|p| p.to_string())).collect::<Result<_>>()?;
        let nodes: String = ports
            .iter()
            .enumerate()
            .map(|(i, port)| {
                let n = i + 1;
                format!(
                    "NodeName=gpu{n} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 \
                     Gres=gpu:h100:8 State=UNKNOWN\n"
                )
            })
            .collect();
        let plugins = if self.chroot {
            // JWT is left out: its plugin is not among the packages.
            "MetricsType=metrics/openmetrics\n".to_owned()
        } else {
            format!(
                "PluginDir={}\nAuthAltTypes=auth/jwt\nAuthAltParameters=jwt_key={d}/jwt.key\n",
                self.libraries()?.join("slurm-wlm").display()
            )
        };
        let config = format!(
            "ClusterName=test\nSlurmctldHost=localhost\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\n\
             AuthInfo=socket={d}/munge/munge.socket\nCommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n{plugins}\
             SlurmctldPort={port}\nStateSaveLocation={d}/state\nSlurmdSpoolDir={d}/spool/%n\n\
             SlurmctldPidFile={d}/run/slurmctld.pid\nSlurmdPidFile={d}/run/slurmd-%n.pid\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\nGresTypes=gpu\nReturnToService=2\nPropagateResourceLimits=NONE\n\
             MpiDefault=none\nSlurmctldTimeout=10\nMessageTimeout=5\n{nodes}\
             PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n",
            port = self.port,
        );
        std::fs::write(at("slurm.conf"), config)?;
        Ok(())
    }

    fn libraries(&self) -> Result<PathBuf> {
        let lib = self.tree.join("usr/lib");
        let found =
            std::fs::read_dir(&lib)?.flatten().map(|e| e.path()).find(|p| p.join("slurm-wlm").is_dir());
        found.with_context(|| format!("no slurm-wlm below {}", lib.display()))
    }

    /// The environment of its programs.
    pub fn environment(&self) -> Result<Vec<(String, String)>> {
        let mut all = vec![("SLURM_CONF".to_owned(), self.inside.join("slurm.conf").display().to_string())];
        if !self.chroot {
            let libraries = self.libraries()?;
            let path = format!("{}:{}", libraries.display(), libraries.join("slurm-wlm").display());
            all.push(("LD_LIBRARY_PATH".to_owned(), path));
        }
        Ok(all)
    }

    fn program(&self, folder: &str, name: &str) -> Command {
        if self.chroot {
            let mut command = Command::new("chroot");
            command.arg(&self.tree).arg(Path::new("/usr").join(folder).join(name));
            command
        } else {
            Command::new(self.tree.join("usr").join(folder).join(name))
        }
    }

    fn daemon(&self, name: &str) -> Command {
        let mut command = self.program("sbin", name);
        command.envs(self.environment().unwrap_or_default());
        command
    }

    /// Runs one of its commands, which must succeed.
    pub fn run(&self, name: &str, args: &[&str]) -> Result<String> {
        let output = self.program("bin", name).envs(self.environment()?).args(args).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{name} {args:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn start_controller(&mut self, test: &Test) -> Result<()> {
        let mut command = self.daemon("slurmctld");
        command.arg("-D");
        self.controller = Some(Daemon::start(test, "slurmctld", &mut command)?);
        Ok(())
    }

    pub fn kill_controller(&mut self) -> Result<()> {
        self.controller.take().context("no controller runs")?.kill()
    }

    /// slurmrestd on a Unix socket, with tokens; its socket, and a file with a token. None (and said so, and counted) where its user
    /// does not come by the program, as below a home folder of root's.
    pub async fn start_restd(&mut self, test: &Test) -> Result<Option<(PathBuf, PathBuf)>> {
        for folder in self.tree.ancestors() {
            if std::fs::metadata(folder)?.permissions().mode() & 0o001 == 0 {
                skip(&format!("slurmrestd refuses root, and no other user may enter {}", folder.display()));
                return Ok(None);
            }
        }
        let place = self.folder.join("rest");
        std::os::unix::fs::chown(&place, Some(NOBODY), Some(NOBODY))?;
        // It must come by what it reads.
        for ancestor in place.ancestors().take_while(|p| p.starts_with(test.folder())) {
            make_open(ancestor)?;
        }
        let socket = place.join("slurmrestd.sock");
        let mut command = self.daemon("slurmrestd");
        command
            .env("SLURM_JWT", "daemon")
            .args(["-a", "rest_auth/jwt", "-s", "openapi/v0.0.38"])
            .arg(format!("unix:{}", socket.display()));
        command.uid(NOBODY).gid(NOBODY);
        self.daemons.push(Daemon::start(test, "slurmrestd", &mut command)?);
        let token = self.run("scontrol", &["token", "username=root", "lifespan=3600"])?;
        let token = token.trim().strip_prefix("SLURM_JWT=").context("no token")?.to_owned();
        let file = self.folder.join("token");
        std::fs::write(&file, token)?;
        private(&file)?;
        eventually("slurmrestd listens", || async {
            ensure!(socket.exists(), "no socket yet");
            Ok(())
        })
        .await?;
        Ok(Some((socket, file)))
    }

    /// How many bytes slurmrestd answers with.
    pub fn restd_bytes(&self, socket: &Path, token: &Path, path: &str) -> Result<usize> {
        use std::io::{Read, Write};
        let token = std::fs::read_to_string(token)?;
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-SLURM-USER-NAME: root\r\nX-SLURM-USER-TOKEN: {}\r\n\r\n",
            token.trim()
        );
        stream.write_all(request.as_bytes())?;
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes += count,
            }
        }
    }

    /// [`Self::commands_grant_of`] the plugin `slurm`.
    pub fn commands_grant(&self) -> Result<String> {
        self.commands_grant_of("slurm")
    }

    /// The grant of the commands that a plugin asks for, with this cluster's programs and environment, as config lines.
    pub fn commands_grant_of(&self, plugin: &str) -> Result<String> {
        let manifest = repository().join("plugins").join(plugin).join("plugin.toml");
        let manifest: toml::Table = std::fs::read_to_string(manifest)?.parse()?;
        let needs = manifest.get("needs").and_then(toml::Value::as_array).context("no needs")?;
        let is_command =
            |n: &&toml::Value| n.get("capability").and_then(toml::Value::as_str) == Some("command");
        let mut grant =
            needs.iter().find(is_command).and_then(toml::Value::as_table).context("no command")?.clone();
        let Some(toml::Value::Array(commands)) = grant.get_mut("commands") else { bail!("no commands") };
        for rule in commands.iter_mut().filter_map(toml::Value::as_table_mut) {
            let program = rule.get("program").and_then(toml::Value::as_str).context("no program")?.to_owned();
            let inside = program.trim_start_matches('/');
            if self.chroot {
                let mut arguments = vec![self.tree.display().to_string().into(), program.clone().into()];
                arguments.extend(
                    rule.get("arguments").and_then(toml::Value::as_array).cloned().unwrap_or_default(),
                );
                rule.insert("program".to_owned(), "/usr/sbin/chroot".into());
                rule.insert("arguments".to_owned(), toml::Value::Array(arguments));
            } else {
                rule.insert("program".to_owned(), self.tree.join(inside).display().to_string().into());
            }
            let variables = rule.entry("environment").or_insert_with(|| toml::Table::new().into());
            let variables = variables.as_table_mut().context("environment is no table")?;
            for (name, value) in self.environment()? {
                variables.insert(name, value.into());
            }
        }
        // A value's own text is inline, as grants of several tables must be.
        let commands = toml::Value::Array(commands.clone());
        Ok(format!("[[plugins.{plugin}.grants]]\ncapability = \"command\"\ncommands = {commands}\n"))
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Jobs are not the daemons' children.
        let _ = self.run("scancel", &["--state=RUNNING", "--user=root", "--signal=KILL", "--full"]);
        let _ = self.run("scancel", &["--user=root"]);
        // What runs a job ends when the controller heard of its end: it would wait for that for ever.
        let until = Instant::now() + Duration::from_secs(10);
        while self.run("squeue", &["-h"]).is_ok_and(|jobs| !jobs.trim().is_empty()) && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.daemons.clear();
        self.controller = None;
        if self.chroot {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Debian names them otherwise until they are installed, and they go by their names in what they do.
fn name_daemons(tree: &Path) -> Result<()> {
    for name in ["slurmctld", "slurmd", "slurmstepd"] {
        let link = tree.join("usr/sbin").join(name);
        match std::os::unix::fs::symlink(format!("{name}-wlm"), &link) {
            // Another test was first.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot link {}", link.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What every system has, and an unpacked package has not.
fn furnish(tree: &Path) -> Result<()> {
    for (name, target) in
        [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
    {
        if !tree.join(name).exists() {
            std::os::unix::fs::symlink(target, tree.join(name))?;
        }
    }
    for name in ["dev", "etc", "tmp", "run"] {
        std::fs::create_dir_all(tree.join(name))?;
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    std::fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write(tree.join("etc/group"), "root:x:0:\n")?;
    std::fs::write(tree.join("etc/hosts"), format!("127.0.0.1 localhost {host}\n"))?;
    for (name, number) in [("null", "3"), ("zero", "5"), ("random", "8"), ("urandom", "9")] {
        make_device(&tree.join("dev").join(name), &["1", number])?;
    }
    Ok(())
}

fn make_device(path: &Path, numbers: &[&str; 2]) -> Result<()> {
    if !path.exists() {
        let status = Command::new("mknod").arg("-m").arg("666").arg(path).arg("c").args(numbers).status()?;
        ensure!(status.success() || path.exists(), "mknod {}: {status}", path.display());
    }
    Ok(())
}

fn private(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .with_context(|| format!("cannot make {} private", path.display()))
}

fn make_open(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("cannot open {}", path.display()))
}
