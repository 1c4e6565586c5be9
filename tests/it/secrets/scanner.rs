//! The search: finds secrets in whatever form.

use super::*;

/// Finds secrets in whatever form.
pub(super) struct Scanner {
    regex: Regex,
    /// The secret's name by the bytes that were found.
    names: BTreeMap<Vec<u8>, String>,
}

impl Scanner {
    pub(super) fn new(secrets: &[(String, Vec<u8>)]) -> Self {
        let mut names = BTreeMap::new();
        for (name, secret) in secrets {
            assert!(
                secret.len() >= 15,
                "{name} is so short that it may stand somewhere by chance"
            );
            for form in forms(secret) {
                names.insert(form, name.clone());
            }
        }
        let escaped = names.keys().map(|form| {
            form.iter().fold(String::new(), |mut text, byte| {
                write!(text, "\\x{byte:02x}").unwrap();
                text
            })
        });
        let pattern = format!("(?s-u){}", escaped.collect::<Vec<_>>().join("|"));
        let regex = RegexBuilder::new(&pattern)
            .size_limit(256 << 20)
            .build()
            .unwrap();
        Self { regex, names }
    }

    /// The name of a secret that is in `bytes`, with what stands around it.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<String> {
        let found = self.regex.find(bytes)?;
        let name = &self.names[found.as_bytes()];
        let around = &bytes[found.start().saturating_sub(200)..bytes.len().min(found.end() + 50)];
        Some(format!("{name} in …{}…", String::from_utf8_lossy(around)))
    }

    /// Everything below `folder` but sockets and what `skip` names; gives the findings and the number of bytes.
    pub(super) fn search(
        &self,
        folder: &Path,
        skip: &dyn Fn(&Path) -> bool,
    ) -> (Vec<String>, usize) {
        let (mut findings, mut size) = (Vec::new(), 0);
        for path in files(folder) {
            if skip(&path) {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            size += bytes.len();
            findings.extend(
                self.find(&bytes)
                    .map(|found| format!("{}: {found}", path.display())),
            );
        }
        (findings, size)
    }
}

/// How a secret may be written: as it is, in hex, in base64 wherever it begins, as a list of numbers, escaped.
pub(super) fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let joined = |form: &dyn Fn(&u8) -> String, between: &str| {
        secret
            .iter()
            .map(form)
            .collect::<Vec<_>>()
            .join(between)
            .into_bytes()
    };
    let mut all = vec![
        secret.to_vec(),
        joined(&|b| format!("{b:02x}"), ""),
        joined(&|b| format!("{b:02X}"), ""),
        joined(&|b| format!("{b:02X}"), ":"),
        joined(&|b| format!("{b:02x}"), " "),
        joined(&|b| b.to_string(), ", "),
        joined(&|b| b.to_string(), ","),
        joined(&|b| format!("%{b:02X}"), ""),
        joined(&|b| format!("\\x{b:02x}"), ""),
        joined(&|b| b.escape_ascii().to_string(), ""),
        format!("{:?}", bytes::Bytes::copy_from_slice(secret))
            .trim_matches(|c| c == 'b' || c == '"')
            .into(),
    ];
    // Without the letters that the bytes before and after have a part in.
    for (before, letters) in [(0, 0), (1, 2), (2, 3)] {
        let padded = [vec![0; before], secret.to_vec()].concat();
        let text = base64(&padded);
        let inner = &text[letters..padded.len() / 3 * 4];
        all.push(inner.as_bytes().to_vec());
        all.push(inner.replace('+', "-").replace('/', "_").into_bytes());
    }
    all
}

/// Without padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for letter in 0..=chunk.len() {
            text.push(char::from(LETTERS[word >> (18 - 6 * letter) & 63]));
        }
    }
    text
}

pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// The private number of a P-256 key in PKCS#8, and the line of the PEM text that has most of it.
pub(super) fn key_secrets(member: &Member, key: &Path) -> Vec<(String, Vec<u8>)> {
    let pem = std::fs::read_to_string(key).unwrap();
    let line = pem.lines().nth(2).unwrap().as_bytes().to_vec();
    let der = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let der = der.secret_pkcs8_der();
    // What stands before it is the same in each such key, and ends with the tag and the length of the number.
    assert_eq!(
        &der[34..36],
        [0x04, 0x20],
        "{} is no P-256 key in PKCS#8",
        key.display()
    );
    let name = format!("the key {} of {}", key.display(), member.name);
    vec![(name.clone(), der[36..68].to_vec()), (name, line)]
}
