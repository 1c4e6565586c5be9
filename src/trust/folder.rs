//! Identities on disk: the configured pair of each purpose, or the key store in its place, and beside it a folder with
//! those that were in force before or shall be.
//!
//! The folder is `identities/` next to the configured certificate (mode 0700), with one pair of files per
//! certificate, named by purpose and fingerprint. An identity is looked for by fingerprint, and its key by whether it
//! fits, wherever it lies; each file is replaced in one step. So whatever step a change was interrupted at, every
//! identity that was there before is found after, and doing the change again completes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{
    domain::purpose::Purpose,
    secret::Secret,
    trust::{
        Error, Identities, InForce,
        bundle::Direction,
        certificate::{
            Certificate, Fingerprint, fingerprint_hex, fingerprint_of, fingerprint_text,
            read_fingerprint,
        },
        identity::{Identity, Readers, public_key, read},
        key_store::KeyStore,
        keys::Key,
        make,
    },
};

/// Where an identity is configured to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityFiles {
    /// PEM chain, leaf first; or the key store.
    pub certificate: PathBuf,
    /// PEM private key; or the key store once more.
    pub key: PathBuf,
    /// How the key store is opened, where it is one.
    pub store: Option<KeyStore>,
}

impl IdentityFiles {
    /// Reads the identity from where it is configured to be, and nowhere else.
    ///
    /// # Errors
    /// What is wrong with which file, and when the key is another certificate's.
    pub fn identity(&self) -> Result<Identity, Error> {
        Ok(pair_of(self)?.identity)
    }
}

impl fmt::Display for IdentityFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.certificate.display();
        match &self.store {
            None => write!(f, "{certificate} with {}", self.key.display()),
            Some(KeyStore {
                alias: Some(alias), ..
            }) => write!(f, "{alias} in {certificate}"),
            Some(_) => write!(f, "{certificate}"),
        }
    }
}

/// The identities of one node. Every call reads or writes files: none belongs on an asynchronous thread for long.
#[derive(Clone, Debug)]
pub struct IdentityFolder {
    places: BTreeMap<Purpose, IdentityFiles>,
}

/// The folder's name.
const FOLDER: &str = "identities";

/// How the mark ends of a pair that nothing names yet. Its name begins with a dot, so it is no certificate and no key.
const BEGUN: &str = ".begun";

/// More files than any node has; a wrong path must not be searched without end.
const MAX_FILES: usize = 4096;

/// One that was begun. For as long as this is kept nobody sweeps it, whichever process it is.
#[derive(Debug)]
pub struct Begun {
    /// Which certificate.
    pub fingerprint: Fingerprint,
    _mark: Option<fs::File>,
}

/// One that was begun and left. For as long as this is kept nobody else ends it.
#[derive(Debug)]
pub struct LeftOver {
    begun: Fingerprint,
    mark: PathBuf,
    _taken: fs::File,
}

/// A certificate with its key, as they lie in files.
pub(super) struct Pair {
    pub(super) chain_pem: Vec<u8>,
    pub(super) key_pem: Secret,
    pub(super) identity: Identity,
}

impl IdentityFolder {
    /// The identities that are configured to lie there.
    #[must_use]
    pub fn new(places: impl IntoIterator<Item = (Purpose, IdentityFiles)>) -> Self {
        Self {
            places: places.into_iter().collect(),
        }
    }

    /// Where the identity of that purpose is configured to lie, if one is configured.
    #[must_use]
    pub fn files(&self, purpose: Purpose) -> Option<&IdentityFiles> {
        self.places.get(&purpose)
    }

    /// The purposes that an identity is configured for.
    pub fn purposes(&self) -> impl Iterator<Item = Purpose> {
        self.places.keys().copied()
    }

    /// The directions in which the identity of that purpose is shown.
    #[must_use]
    pub fn directions(&self, purpose: Purpose) -> &'static [Direction] {
        let has_client = self.places.contains_key(&Purpose::FederationClient);
        match purpose {
            Purpose::Federation if !has_client => &[Direction::Server, Direction::Client],
            Purpose::Federation | Purpose::Phone => &[Direction::Server],
            Purpose::FederationClient => &[Direction::Client],
        }
    }

    /// The folder beside the configured files.
    ///
    /// # Errors
    /// [`Error::NotConfigured`].
    pub fn folder(&self, purpose: Purpose) -> Result<PathBuf, Error> {
        Ok(parent(&self.place(purpose)?.certificate).join(FOLDER))
    }

    /// The file in the folder of one certificate.
    ///
    /// # Errors
    /// [`Error::NotConfigured`].
    pub fn certificate_file(&self, purpose: Purpose, of: &Fingerprint) -> Result<PathBuf, Error> {
        Ok(self.names(purpose, of)?.0)
    }

    /// The files in which keys are in PEM: those in the folder, and the configured one.
    ///
    /// # Errors
    /// [`Error::NotConfigured`], and [`Error::File`] when the folder can't be read.
    pub fn key_files(&self, purpose: Purpose) -> Result<Vec<PathBuf>, Error> {
        let mut files = files_in(&self.folder(purpose)?, "", ".key")?;
        let place = self.place(purpose)?;
        files.extend(place.store.is_none().then(|| place.key.clone()));
        Ok(files)
    }

    /// The key in the configured key store; `None` where keys lie in files of their own.
    ///
    /// # Errors
    /// [`Error::NotConfigured`], and why the key store can't be read.
    pub fn key_in_store(&self, purpose: Purpose) -> Result<Option<Key>, Error> {
        let place = self.place(purpose)?;
        let Some(store) = &place.store else {
            return Ok(None);
        };
        let pair = store.pair(&place.certificate)?;
        Ok(Some(Key {
            file: place.key.clone(),
            public_key: public_key(&pair.key_pem)?,
            key_pem: pair.key_pem,
        }))
    }

    /// The identity that is configured. The certificate's file decides: while its change is under way the key may still
    /// lie in the folder.
    ///
    /// # Errors
    /// What is wrong with which file, as [`Identity::from_files`].
    pub fn configured(&self, purpose: Purpose) -> Result<Identity, Error> {
        Ok(self.configured_pair(purpose)?.identity)
    }

    /// Keeps an identity in the folder, to be found by its fingerprint. The configured files stay as they are.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] and others when the two are no identity; nothing is written then. [`Error::Write`].
    pub fn write(
        &self,
        purpose: Purpose,
        chain_pem: &[u8],
        key_pem: &Secret,
    ) -> Result<Fingerprint, Error> {
        let pair = Pair::read(chain_pem, key_pem)?;
        self.keep(purpose, &pair)?;
        Ok(pair.fingerprint())
    }

    /// Keeps one that is found, wherever it lies, in the folder as well: whatever becomes of the configured files, it is
    /// found again.
    ///
    /// # Errors
    /// As [`IdentityFolder::find`], and [`Error::Write`].
    pub fn keep_found(&self, purpose: Purpose, of: &Fingerprint) -> Result<(), Error> {
        let pair = self.pair(purpose, of)?;
        self.keep(purpose, &pair)
    }

    /// Keeps one that nothing names yet: a [`sweep`](IdentityFolder::sweep) of the same node takes it away again if nothing
    /// ever does. What lies there already was put there by somebody, and stays.
    ///
    /// # Errors
    /// As [`IdentityFolder::write`].
    pub fn begin(
        &self,
        purpose: Purpose,
        node: &str,
        chain_pem: &[u8],
        key_pem: &Secret,
    ) -> Result<Begun, Error> {
        let pair = Pair::read(chain_pem, key_pem)?;
        let fingerprint = pair.fingerprint();
        let (certificate, key) = self.names(purpose, &fingerprint)?;
        // Another node may be about to have the same one.
        let is_begun = !self.marks(purpose, Some(&fingerprint))?.is_empty();
        let mark = if is_begun || !certificate.exists() && !key.exists() {
            Self::make_folder(&self.folder(purpose)?)?;
            let mark = self.mark(purpose, &fingerprint, node)?;
            Some(hold(&mark, node).map_err(|source| unwritable(&mark, source))?)
        } else {
            None
        };
        self.keep(purpose, &pair)?;
        Ok(Begun {
            fingerprint,
            _mark: mark,
        })
    }

    /// What that node has begun, and nobody is at work on: from now on nobody else ends it. What another node has begun, or
    /// another process is beginning, is left to them. Whatever names one of them is to be asked for after this: whoever
    /// begins one lets go of it only when that is on record.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn left_over(&self, purpose: Purpose, node: &str) -> Result<Vec<LeftOver>, Error> {
        let mut all = Vec::new();
        for (mark, begun) in self.marks(purpose, None)? {
            if mark != self.mark(purpose, &begun, node)? {
                continue;
            }
            all.extend(take_over(&mark).map(|taken| LeftOver {
                begun,
                mark,
                _taken: taken,
            }));
        }
        Ok(all)
    }

    /// Ends what was left over: what is among `named`, or configured, stays for good, and the others go with their keys.
    /// How many went.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Write`]. While what is configured can't be read, nothing goes.
    pub fn sweep(
        &self,
        purpose: Purpose,
        left_over: Vec<LeftOver>,
        named: &BTreeSet<Fingerprint>,
    ) -> Result<usize, Error> {
        let mut gone = 0;
        let configured = self.configured(purpose);
        let configured = configured.map(|identity| identity.leaf().fingerprint());
        for LeftOver {
            begun,
            mark,
            _taken,
        } in left_over
        {
            let stays = named.contains(&begun) || configured.as_ref().is_ok_and(|of| *of == begun);
            let is_others = self.marks(purpose, Some(&begun))?.len() > 1;
            if stays || is_others {
                delete(&mark)?;
            } else if configured.is_ok() {
                self.remove(purpose, &begun)?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// The identity with that certificate, wherever it and its key lie.
    ///
    /// # Errors
    /// [`Error::NoSuchIdentity`] when there is none, or what is wrong with the only one.
    pub fn find(&self, purpose: Purpose, wanted: &Fingerprint) -> Result<Identity, Error> {
        Ok(self.pair(purpose, wanted)?.identity)
    }

    /// Makes it the configured one. The one that was configured before is kept in the folder. Done again after an
    /// interruption it goes on where it stopped; done again after its end it does nothing.
    ///
    /// # Errors
    /// As [`IdentityFolder::find`]; [`Error::Write`] and [`Error::File`].
    pub fn settle(&self, purpose: Purpose, wanted: &Fingerprint) -> Result<(), Error> {
        let files = self.place(purpose)?.clone();
        let earlier = pair_of(&files);
        if earlier
            .as_ref()
            .is_ok_and(|pair| pair.fingerprint() == *wanted)
        {
            return Ok(());
        }
        let next = self.pair(purpose, wanted)?;
        // From here on both are in the folder, so that either is found whatever the configured files hold.
        match &earlier {
            Ok(earlier) => self.keep(purpose, earlier)?,
            Err(_) if files.store.is_some() => {}
            Err(_) => self.keep_key(purpose, &files.key)?,
        }
        self.keep(purpose, &next)?;
        if let Some(store) = &files.store {
            // Certificate and key change in one step here.
            return replace_private(&files.certificate, &store.with(&files.certificate, &next)?);
        }
        replace_public(&files.certificate, &next.chain_pem)?;
        replace_private(&files.key, &next.key_pem)
    }

    /// Forgets one in the folder. What is configured stays, whatever it is.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn remove(&self, purpose: Purpose, unwanted: &Fingerprint) -> Result<bool, Error> {
        let (certificate, key) = self.names(purpose, unwanted)?;
        // A certificate without a key is not found any more; a key without its certificate would be left over.
        let was_there = delete(&certificate)?;
        let was_there = delete(&key)? || was_there;
        // A begun one is swept until all of it is gone, so this comes last.
        let mut was_begun = false;
        for (mark, _) in self.marks(purpose, Some(unwanted))? {
            was_begun |= delete(&mark)?;
        }
        if was_there || was_begun {
            // A key that comes back with the power would lie there for ever.
            let folder = self.folder(purpose)?;
            let synced = fs::File::open(&folder).and_then(|open| open.sync_all());
            synced.map_err(|source| unwritable(&folder, source))?;
        }
        Ok(was_there)
    }

    /// The certificates that are there with their keys, the configured one first.
    ///
    /// # Errors
    /// [`Error::NotConfigured`], and [`Error::File`] when the folder can't be read.
    #[cfg(test)]
    pub fn list(&self, purpose: Purpose) -> Result<Vec<Certificate>, Error> {
        let mut found: Vec<Certificate> = Vec::new();
        if let Ok(identity) = self.configured(purpose) {
            found.push(identity.leaf().clone());
        }
        let folder = self.folder(purpose)?;
        for file in files_in(&folder, &format!("{purpose}-"), ".pem")? {
            let Ok(leaf) = leaf_of(&file) else { continue };
            let is_known = found.iter().any(|c| c.fingerprint() == leaf.fingerprint());
            if !is_known && self.find(purpose, &leaf.fingerprint()).is_ok() {
                found.push(leaf);
            }
        }
        Ok(found)
    }

    /// What peers are to be shown: what is configured, or what the state of a rotation says.
    ///
    /// # Errors
    /// The purpose whose identity is missing or broken, and why.
    pub fn federation(
        &self,
        server: &InForce,
        client: &InForce,
    ) -> Result<Identities, (Purpose, Error)> {
        let (purpose, caller) = match self.places.contains_key(&Purpose::FederationClient) {
            true => (Purpose::FederationClient, client),
            false => (Purpose::Federation, server),
        };
        let in_force = |purpose, in_force: &InForce| {
            let found = match &in_force.active {
                Some(active) => self.find(purpose, active),
                None => self.configured(purpose),
            };
            found.map_err(|error| (purpose, error))
        };
        let mut identities = Identities::from(in_force(Purpose::Federation, server)?);
        if purpose == Purpose::FederationClient {
            identities.client = Some(in_force(purpose, client)?);
        }
        if let (Some(old), false) = (&caller.old, caller.old_for.is_empty()) {
            let old = self.find(purpose, old).map_err(|error| (purpose, error))?;
            let still = caller.old_for.iter().cloned();
            identities.old_for = still.map(|cluster| (cluster, old.clone())).collect();
        }
        Ok(identities)
    }

    fn place(&self, purpose: Purpose) -> Result<&IdentityFiles, Error> {
        self.places
            .get(&purpose)
            .ok_or(Error::NotConfigured { purpose })
    }

    /// The names in the folder of the files of one certificate.
    fn names(&self, purpose: Purpose, of: &Fingerprint) -> Result<(PathBuf, PathBuf), Error> {
        let folder = self.folder(purpose)?;
        let name = |ending| folder.join(format!("{purpose}-{}.{ending}", fingerprint_hex(of)));
        Ok((name("pem"), name("key")))
    }

    /// What lies beside a pair in the folder that was begun by that node: nodes of a cluster may have one folder between
    /// them. Any name will do for a node, so it is not written out.
    fn mark(&self, purpose: Purpose, of: &Fingerprint, node: &str) -> Result<PathBuf, Error> {
        let node = fingerprint_hex(&fingerprint_of(node.as_bytes()));
        let name = format!(".{purpose}-{}.{node}{BEGUN}", fingerprint_hex(of));
        Ok(self.folder(purpose)?.join(name))
    }

    /// The marks of all nodes, each with what was begun; only those of one certificate, if one is named.
    fn marks(
        &self,
        purpose: Purpose,
        wanted: Option<&Fingerprint>,
    ) -> Result<Vec<(PathBuf, Fingerprint)>, Error> {
        let beginning = format!(".{purpose}-");
        let begun = |mark: PathBuf| {
            let name = mark.file_name()?.to_str()?;
            let rest = name.strip_prefix(&beginning)?.strip_suffix(BEGUN)?;
            let begun = read_fingerprint(rest.split_once('.')?.0)?;
            Some((mark, begun))
        };
        let all = all_in(&self.folder(purpose)?)?.into_iter();
        let all = all.filter_map(begun);
        let all = all.filter(|(_, begun)| wanted.is_none_or(|wanted| wanted == begun));
        Ok(all.collect())
    }

    /// Writes into the folder. The key comes first: what has a certificate there has its key as well.
    fn keep(&self, purpose: Purpose, pair: &Pair) -> Result<(), Error> {
        Self::make_folder(&self.folder(purpose)?)?;
        let (certificate, key) = self.names(purpose, &pair.fingerprint())?;
        replace_private(&key, &pair.key_pem)?;
        replace_public(&certificate, &pair.chain_pem)
    }

    /// Keeps a configured key that is not the configured certificate's, unless it is in the folder already.
    fn keep_key(&self, purpose: Purpose, key: &Path) -> Result<(), Error> {
        let Ok(key_pem) = read(key, Readers::OwnerOnly) else {
            return Ok(());
        };
        let Ok(public) = public_key(&key_pem) else {
            return Ok(());
        };
        let folder = self.folder(purpose)?;
        for file in files_in(&folder, "", ".key")? {
            let other = read(&file, Readers::OwnerOnly).and_then(|other| public_key(&other));
            if other.is_ok_and(|other| other == public) {
                return Ok(());
            }
        }
        Self::make_folder(&folder)?;
        let name = format!(
            "{purpose}-key-{}.key",
            fingerprint_hex(&fingerprint_of(&public))
        );
        replace_private(&folder.join(name), &key_pem)
    }

    fn make_folder(folder: &Path) -> Result<(), Error> {
        let made = fs::DirBuilder::new().mode(0o700).create(folder);
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(unwritable(folder, error));
            }
            Ok(()) | Err(_) => {}
        }
        make::as_owned_as(parent(folder), folder)
            .and_then(|()| fs::File::open(parent(folder))?.sync_all())
            .map_err(|source| unwritable(folder, source))
    }

    fn configured_pair(&self, purpose: Purpose) -> Result<Pair, Error> {
        let files = self.place(purpose)?;
        match pair_of(files) {
            Err(error @ Error::KeyMismatch { .. }) => {
                let chain_pem = read(&files.certificate, Readers::Anyone)?;
                let keys = files_in(&self.folder(purpose)?, "", ".key")?;
                with_key(chain_pem.expose(), &keys)?.ok_or(error)
            }
            outcome => outcome,
        }
    }

    fn pair(&self, purpose: Purpose, wanted: &Fingerprint) -> Result<Pair, Error> {
        let files = self.place(purpose)?;
        let folder = self.folder(purpose)?;
        let (certificate, key) = self.names(purpose, wanted)?;
        // Where it belongs by its name, then wherever it may have been put by hand.
        let (mut certificates, mut keys) = (vec![certificate], vec![key]);
        // What can't be read may be what is looked for: only what was looked at everywhere is not there.
        let mut unread = None;
        match &files.store {
            None => {
                certificates.insert(0, files.certificate.clone());
                keys.push(files.key.clone());
            }
            Some(_) => match pair_of(files) {
                Ok(pair) if pair.fingerprint() == *wanted => return Ok(pair),
                Ok(_) => {}
                Err(error) => unread = Some(error),
            },
        }
        certificates.extend(files_in(&folder, "", ".pem")?);
        keys.extend(files_in(&folder, "", ".key")?);
        for file in certificates {
            match leaf_of(&file) {
                Ok(leaf) if leaf.fingerprint() == *wanted => {}
                Ok(_) => continue,
                Err(error) => {
                    unread = unread.or_else(|| unreadable(error));
                    continue;
                }
            }
            let chain_pem = read(&file, Readers::Anyone)?;
            if let Some(pair) = with_key(chain_pem.expose(), &keys)? {
                return Ok(pair);
            }
        }
        Err(unread.unwrap_or_else(|| Error::NoSuchIdentity {
            purpose,
            fingerprint: fingerprint_text(wanted),
            folder,
        }))
    }
}

impl Pair {
    fn read(chain_pem: &[u8], key_pem: &Secret) -> Result<Self, Error> {
        Ok(Self {
            identity: Identity::from_pem(chain_pem, key_pem)?,
            chain_pem: chain_pem.to_vec(),
            key_pem: key_pem.clone(),
        })
    }

    fn fingerprint(&self) -> Fingerprint {
        self.identity.leaf().fingerprint()
    }
}

/// What is configured: the key store, or two files, which must be each other's.
fn pair_of(files: &IdentityFiles) -> Result<Pair, Error> {
    if let Some(store) = &files.store {
        return store.pair(&files.certificate);
    }
    let chain_pem = read(&files.certificate, Readers::Anyone)?;
    let key_pem = read(&files.key, Readers::OwnerOnly)?;
    let identity = Identity::from_pem(chain_pem.expose(), &key_pem)?;
    Ok(Pair {
        chain_pem: chain_pem.expose().to_vec(),
        key_pem,
        identity,
    })
}

/// The error, if it is of a file that is there and can't be read.
fn unreadable(error: Error) -> Option<Error> {
    match &error {
        Error::File { source, .. } if source.kind() != ErrorKind::NotFound => Some(error),
        _ => None,
    }
}

/// The certificate with the first of these keys that is its own. One that others can read, and one that can't be read,
/// is told of only when there is no better one.
fn with_key(chain_pem: &[u8], keys: &[PathBuf]) -> Result<Option<Pair>, Error> {
    let mut open = None;
    for file in keys {
        let key_pem = match read(file, Readers::OwnerOnly) {
            Ok(key_pem) => key_pem,
            Err(error @ Error::KeyReadableByOthers { .. }) => {
                open = Some(error);
                continue;
            }
            Err(error) => {
                open = open.or_else(|| unreadable(error));
                continue;
            }
        };
        match Identity::from_pem(chain_pem, &key_pem) {
            Ok(identity) => {
                return Ok(Some(Pair {
                    chain_pem: chain_pem.to_vec(),
                    key_pem,
                    identity,
                }));
            }
            Err(Error::KeyMismatch { .. } | Error::MalformedKey { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    open.map_or(Ok(None), Err)
}

fn leaf_of(file: &Path) -> Result<Certificate, Error> {
    let chain = Certificate::read_all(read(file, Readers::Anyone)?.expose())?;
    chain
        .into_iter()
        .next()
        .ok_or_else(|| Error::MalformedCertificate {
            reason: "there is none".to_owned(),
        })
}

/// The files of a folder with that beginning and ending, in order; none where there is no folder.
pub(super) fn files_in(
    folder: &Path,
    beginning: &str,
    ending: &str,
) -> Result<Vec<PathBuf>, Error> {
    let mut files = all_in(folder)?;
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // What begins with a dot was never finished.
        name.starts_with(beginning) && name.ends_with(ending) && !name.starts_with('.')
    });
    Ok(files)
}

/// What lies in a folder, in order; nothing where there is none.
fn all_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::File {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(source)),
    };
    let entries = entries.take(MAX_FILES).map(|entry| Ok(entry?.path()));
    let mut files = entries
        .collect::<io::Result<Vec<_>>>()
        .map_err(unreadable)?;
    files.sort();
    Ok(files)
}

/// Puts a mark there and holds it until it is dropped, or the process ends.
fn hold(mark: &Path, node: &str) -> io::Result<fs::File> {
    loop {
        make::replace(mark, format!("{node}\n").as_bytes(), 0o600)?;
        let file = match fs::File::open(mark) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened?,
        };
        // Where files can't be locked, the node's name in the mark's has to do.
        drop(file.lock());
        // Whoever came in between has taken it for a mark that was left over.
        if mark.exists() {
            return Ok(file);
        }
    }
}

/// Takes a mark over that was left, until it is dropped. None while whoever has put it there is still at it, and when it is
/// gone.
fn take_over(mark: &Path) -> Option<fs::File> {
    let file = fs::File::open(mark).ok()?;
    let is_held = matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
    (!is_held).then_some(file)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn replace_private(path: &Path, content: &Secret) -> Result<(), Error> {
    make::replace(path, content.expose(), 0o600).map_err(|source| unwritable(path, source))
}

fn replace_public(path: &Path, content: &[u8]) -> Result<(), Error> {
    make::replace(path, content, 0o644).map_err(|source| unwritable(path, source))
}

fn delete(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(unwritable(path, source)),
    }
}

fn unwritable(path: &Path, source: io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
