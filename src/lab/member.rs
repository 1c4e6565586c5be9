//! One node of a lab: its folder, its configuration, and the process or the part of ours that runs it.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::{
    Hosting, Spec,
    admin::Admin,
    authority::{self, ClusterAuthority},
    phone::Phone,
    ports::Ports,
};
use crate::{
    clock::Clock,
    config,
    domain::{
        ids::ClusterId,
        version::{Version, VersionRange},
    },
    fault::FaultPoints,
    node::{self, Node},
    trust::make::Made,
};

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// `host:port` of the federation listener.
    pub federation: String,
    /// `https://host:port` of the phone listener.
    pub phone: String,
    /// The admin socket.
    pub admin: PathBuf,
    /// `http://host:port` of the listener for figures and health.
    pub metrics: String,
}

/// Which protocol versions a node may speak, and where it stops for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Not below this; the oldest when absent.
    pub min: Option<Version>,
    /// Not above this; the newest when absent.
    pub max: Option<Version>,
    /// The fault point at which the node stops.
    pub stop_at: Option<String>,
}

impl Versions {
    /// Only up to `max`.
    #[must_use]
    pub fn up_to(max: Version) -> Self {
        Self {
            max: Some(max),
            ..Self::default()
        }
    }

    /// Only from `min` on.
    #[must_use]
    pub fn from(min: Version) -> Self {
        Self {
            min: Some(min),
            ..Self::default()
        }
    }

    /// All versions, but the node stops at the fault point `point`.
    #[must_use]
    pub fn stopping_at(point: &str) -> Self {
        Self {
            stop_at: Some(point.to_owned()),
            ..Self::default()
        }
    }
}

/// What a supervised `emccd run` says on its standard output, one object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// All listeners are open.
    Ready,
    /// It came to the fault point where it was told to stop, and stays there.
    StoppedAt {
        /// The point's name.
        point: String,
        /// At a commit: the paths of the operations whose effects it makes durable.
        writes: Vec<String>,
    },
}

/// One node.
#[derive(Debug)]
pub struct Member {
    /// Its name, `node-1` and so on.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where it is reached.
    pub addresses: Addresses,
    /// The certificate it shows to other clusters.
    pub federation_certificate: PathBuf,
    /// Its key.
    pub federation_key: PathBuf,
    /// The cluster authority's certificate.
    pub ca_file: PathBuf,
    /// The wall clock of a node in this process, to be set wrong; one in a process of its own has the machine's.
    pub clock: Clock,
    hosting: Hosting,
    hosted: Hosted,
}

#[derive(Debug)]
enum Hosted {
    Off,
    Here(Box<Node>),
    Child(Box<Running>),
}

#[derive(Debug)]
struct Running {
    child: Child,
    events: tokio::sync::Mutex<Lines<BufReader<ChildStdout>>>,
    pid: u32,
}

/// How long a node may take to open its listeners: a debug build on a busy machine is slow.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The lab's own settings: quick to notice, and hashing cheap enough for many nodes on two cores.
const SETTINGS: [(&str, &str); 5] = [
    ("federation", "heartbeat = \"500ms\""),
    ("federation", "dead-after = \"1500ms\""),
    ("credentials", "memory-kib = 8"),
    ("credentials", "iterations = 1"),
    ("log", "level = \"info\""),
];

impl Member {
    /// Makes the node's folder with certificates and configuration. It does not run yet.
    ///
    /// # Errors
    /// When something can't be made.
    pub fn lay_out(
        cluster_folder: &Path,
        cluster: &ClusterId,
        number: usize,
        spec: &Spec,
        authority: &ClusterAuthority,
        ports: &mut Ports,
    ) -> Result<Self> {
        let name = format!("node-{number}");
        let folder = cluster_folder.join(&name);
        std::fs::create_dir_all(&folder)?;
        let files = |kind: &str| {
            (
                folder.join(format!("{kind}.pem")),
                folder.join(format!("{kind}.key")),
            )
        };
        let (federation_certificate, federation_key) = files("federation");
        let (phone_certificate, phone_key) = files("phone");
        authority::write(
            &authority.sign(&authority.request(&name))?,
            &federation_certificate,
            &federation_key,
        )?;
        authority::write(
            &authority.sign(&authority.request(&name))?,
            &phone_certificate,
            &phone_key,
        )?;
        let pepper = cluster_folder.join("pepper");
        if !pepper.exists() {
            crate::trust::make::write_private(&pepper, &node::new_pepper())?;
        }
        let (federation, phone) = (ports.take()?, ports.take()?);
        let metrics = ports.take()?;
        let member = Self {
            addresses: Addresses {
                federation: federation.to_string(),
                phone: format!("https://{phone}"),
                admin: folder.join("admin.sock"),
                metrics: format!("http://{metrics}"),
            },
            config: folder.join(config::FILE_NAME),
            name,
            federation_certificate,
            federation_key,
            ca_file: authority.file.clone(),
            clock: Clock::system(),
            hosting: spec.hosting.clone(),
            hosted: Hosted::Off,
            folder,
        };
        let text =
            member.configuration(cluster, cluster_folder, [federation, phone, metrics], spec)?;
        std::fs::write(&member.config, text)?;
        Ok(member)
    }

    fn configuration(
        &self,
        cluster: &ClusterId,
        cluster_folder: &Path,
        [federation, phone, metrics]: [std::net::SocketAddr; 3],
        spec: &Spec,
    ) -> Result<String> {
        let store = cluster_folder.join("emccd.db");
        let own = [
            ("federation", format!("listen = \"{federation}\"")),
            (
                "identity",
                "certificate = \"federation.pem\"\nkey = \"federation.key\"".to_owned(),
            ),
            (
                "phone",
                format!("listen = \"{phone}\"\ncertificate = \"phone.pem\"\nkey = \"phone.key\""),
            ),
            ("admin", "socket = \"admin.sock\"".to_owned()),
            ("metrics", format!("listen = \"{metrics}\"")),
            ("store", format!("url = \"sqlite:{}\"", store.display())),
            (
                "credentials",
                format!(
                    "pepper-file = \"{}\"",
                    cluster_folder.join("pepper").display()
                ),
            ),
        ];
        let mut sections: Vec<(&str, Vec<String>)> = Vec::new();
        let lines = own
            .iter()
            .map(|(section, line)| (*section, line.as_str()))
            .chain(SETTINGS)
            .chain(
                spec.settings
                    .iter()
                    .map(|(section, line)| (section.as_str(), line.as_str())),
            );
        for (section, line) in lines {
            let key = line.split('=').next().unwrap_or_default().trim().to_owned();
            let index = sections.iter().position(|(name, _)| *name == section);
            match index.and_then(|i| sections.get_mut(i)) {
                None => sections.push((section, vec![line.to_owned()])),
                // A later line for the same key takes the earlier one's place.
                Some((_, lines)) => {
                    lines.retain(|old| !old.starts_with(&format!("{key} =")));
                    lines.push(line.to_owned());
                }
            }
        }
        let mut text = format!(
            "version = 1\ncluster-id = \"{cluster}\"\nnode = \"{}\"\n",
            self.name
        );
        for (section, lines) in sections {
            write!(text, "\n[{section}]\n{}\n", lines.join("\n"))?;
        }
        Ok(text)
    }

    /// Starts the node and waits until it is ready.
    ///
    /// # Errors
    /// When it runs already, or does not get ready; the message ends with its log.
    pub async fn start(&mut self, versions: &Versions) -> Result<()> {
        match self.begin(versions).await? {
            Event::Ready => Ok(()),
            other => bail!("{} began with {other:?}", self.name),
        }
    }

    /// Starts the node and waits for the first thing that it says: that it is ready, or that it has come to its fault
    /// point before that.
    ///
    /// # Errors
    /// When it runs already, or says nothing in time; the message ends with its log.
    pub async fn begin(&mut self, versions: &Versions) -> Result<Event> {
        if !matches!(self.hosted, Hosted::Off) {
            bail!("{} runs already", self.name);
        }
        match &self.hosting {
            Hosting::InProcess => {
                self.hosted = Hosted::Here(Box::new(self.start_here(versions).await?));
                Ok(Event::Ready)
            }
            Hosting::Processes { binary } => {
                let running = self.spawn(binary, &self.config, versions, &[])?;
                self.hosted = Hosted::Child(Box::new(running));
                match tokio::time::timeout(START_LIMIT, self.next_event()).await {
                    Ok(event) => event,
                    Err(_) => bail!(
                        "{} was not ready within {START_LIMIT:?}; its log:\n{}",
                        self.name,
                        self.log_tail()
                    ),
                }
            }
        }
    }

    async fn start_here(&self, versions: &Versions) -> Result<Node> {
        if versions.stop_at.is_some() {
            bail!("only a node in a process of its own can be stopped at a fault point");
        }
        let config = config::load(&self.config)?;
        let supported = VersionRange::SUPPORTED;
        let range = VersionRange::new(
            versions.min.unwrap_or_else(|| supported.min()),
            versions.max.unwrap_or_else(|| supported.max()),
        )
        .context("the version range is empty")?;
        let options = node::Options {
            versions: range,
            faults: FaultPoints::none(),
            clock: self.clock.clone(),
            take_over: false,
        };
        Ok(Node::start(config, options).await?)
    }

    fn spawn(
        &self,
        binary: &Path,
        config: &Path,
        versions: &Versions,
        more: &[&str],
    ) -> Result<Running> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        let mut command = Command::new(binary);
        command
            .args(["run", "--supervised", "--config"])
            .arg(config)
            .args(more);
        if let Some(min) = versions.min {
            command.args(["--protocol-min", &min.to_string()]);
        }
        if let Some(max) = versions.max {
            command.args(["--protocol-max", &max.to_string()]);
        }
        if let Some(point) = &versions.stop_at {
            command.args(["--stop-at", point]);
        }
        // The node ends when its standard input does: none outlives the lab, however the lab ends.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("{} could not be started", binary.display()))?;
        let stdout = child
            .stdout
            .take()
            .context("the child has no standard output")?;
        let pid = child.id().context("the child has ended at once")?;
        Ok(Running {
            child,
            events: tokio::sync::Mutex::new(BufReader::new(stdout).lines()),
            pid,
        })
    }

    /// The next thing that the node's process says.
    ///
    /// # Errors
    /// When it has no process of its own, or ended.
    pub async fn next_event(&self) -> Result<Event> {
        let Hosted::Child(running) = &self.hosted else {
            bail!("{} has no process of its own", self.name)
        };
        match running.events.lock().await.next_line().await? {
            Some(line) => {
                Ok(serde_json::from_str(&line).with_context(|| format!("not an event: {line}"))?)
            }
            None => bail!("{} ended; its log:\n{}", self.name, self.log_tail()),
        }
    }

    /// Waits until the node has stopped at the fault point that it was started with.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub async fn wait_stopped_at(&self, point: &str, limit: Duration) -> Result<()> {
        let event = tokio::time::timeout(limit, self.next_event())
            .await
            .with_context(|| format!("{} did not come to {point} within {limit:?}", self.name))??;
        if !matches!(&event, Event::StoppedAt { point: at, .. } if at == point) {
            bail!("{} said {event:?}, not that it came to {point}", self.name);
        }
        Ok(())
    }

    /// Whether it runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        !matches!(self.hosted, Hosted::Off)
    }

    /// The process that runs it; our own for a node in this process, none for one that is off.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.hosted {
            Hosted::Off => None,
            Hosted::Here(_) => Some(std::process::id()),
            Hosted::Child(running) => Some(running.pid),
        }
    }

    /// Stops it in an orderly way, and waits until it is gone.
    pub async fn stop(&mut self) {
        match std::mem::replace(&mut self.hosted, Hosted::Off) {
            Hosted::Off => {}
            Hosted::Here(node) => node.shut_down().await,
            Hosted::Child(mut running) => {
                // A signal rather than the end of its input: this is what a service manager does. The input stays open
                // until it is gone: waiting closes it otherwise, and two reasons to end are one to end at once.
                let _input = running.child.stdin.take();
                let _gone = signal(running.pid, nix::sys::signal::Signal::SIGTERM);
                if tokio::time::timeout(STOP_LIMIT, running.child.wait())
                    .await
                    .is_err()
                {
                    let _gone = running.child.kill().await;
                }
            }
        }
    }

    /// Has a new process of the node take over from the one that runs, and waits until that one has ended. The new one
    /// goes by `config`, which is the node's own unless a test wants it to fail.
    ///
    /// # Errors
    /// When the new one does not start, in which case the old one goes on; or when the old one does not end.
    pub async fn take_over(&mut self, config: &Path) -> Result<()> {
        let Hosting::Processes { binary } = &self.hosting else {
            bail!("{} has no process of its own", self.name);
        };
        let mut new = self.spawn(binary, config, &Versions::default(), &["--take-over"])?;
        let first = tokio::time::timeout(START_LIMIT, new.events.get_mut().next_line()).await;
        let line = first.context("the new process was not ready in time")??;
        if line.is_none() {
            bail!("the new process ended; the log:\n{}", self.log_tail());
        }
        let old = std::mem::replace(&mut self.hosted, Hosted::Child(Box::new(new)));
        if let Hosted::Child(mut old) = old {
            // It is to end because it was succeeded: waiting would close its input first, which ends it as well.
            let input = old.child.stdin.take();
            let ended = tokio::time::timeout(STOP_LIMIT, old.child.wait()).await;
            drop(input);
            let status = ended.context("the old process did not end")??;
            if !status.success() {
                bail!(
                    "the old process ended with {status}; the log:\n{}",
                    self.log_tail()
                );
            }
        }
        Ok(())
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Errors
    /// When it has no process of its own.
    pub async fn kill(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.hosted, Hosted::Off) {
            Hosted::Child(mut running) => Ok(running.child.kill().await?),
            other => {
                self.hosted = other;
                bail!("{} has no process of its own to kill", self.name)
            }
        }
    }

    /// `SIGSTOP`: the process stands still, its sockets stay open.
    ///
    /// # Errors
    /// When it has no process of its own.
    pub fn pause(&self) -> Result<()> {
        self.signal(nix::sys::signal::Signal::SIGSTOP)
    }

    /// `SIGCONT` after [`Member::pause`].
    ///
    /// # Errors
    /// When it has no process of its own.
    pub fn resume(&self) -> Result<()> {
        self.signal(nix::sys::signal::Signal::SIGCONT)
    }

    fn signal(&self, which: nix::sys::signal::Signal) -> Result<()> {
        match &self.hosted {
            Hosted::Child(running) => signal(running.pid, which),
            _ => bail!("{} has no process of its own", self.name),
        }
    }

    /// Gives the node another certificate for other clusters, in its files; [`Admin::reload`] puts it in force.
    ///
    /// # Errors
    /// When the files can't be written.
    pub fn install(&self, made: &Made) -> Result<()> {
        authority::write(made, &self.federation_certificate, &self.federation_key)
    }

    /// An operator's connection.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn admin(&self) -> Result<Admin> {
        Admin::connect(&self.addresses.admin).await
    }

    /// A phone that talks to this node.
    ///
    /// # Errors
    /// When the authority's certificate can't be read.
    pub fn phone(&self) -> Result<Phone> {
        let ca = std::fs::read_to_string(&self.ca_file)?;
        Ok(Phone::https(&self.addresses.phone, &ca)?)
    }

    /// Where the log of a process of its own goes.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(20)..)
            .unwrap_or_default()
            .join("\n")
    }
}

fn signal(pid: u32, which: nix::sys::signal::Signal) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    Ok(nix::sys::signal::kill(pid, which)?)
}
