//! The metadata of every call: who calls, which version it speaks, and the reference of the attempt.

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::domain::{
    ids::{ClusterId, Ref},
    version::Version,
};

/// The cluster that the caller says it is.
pub const CLUSTER_ID: &str = "emcc-cluster-id";
/// `major.minor`, the version that the caller speaks on this call.
pub const VERSION: &str = "emcc-version";
/// The reference of the attempt, compact.
pub const REF: &str = "emcc-ref";

/// A key that is there but can't be read. The value itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the metadata {key} is malformed")]
pub struct Unreadable {
    /// Which key.
    pub key: &'static str,
}

/// What a call says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMetadata {
    /// Who the caller says it is; when absent, the certificate alone identifies.
    pub cluster_id: Option<ClusterId>,
    /// What it speaks; 1.0 when it doesn't say.
    pub version: Version,
    /// The attempt; when absent, the called side makes one.
    pub reference: Option<Ref>,
}

/// Reads what a call says of itself.
///
/// # Errors
/// [`Unreadable`] for the first key whose value can't be read; an absent key is none.
pub fn read(map: &MetadataMap) -> Result<CallMetadata, Unreadable> {
    Ok(CallMetadata {
        cluster_id: cluster_id(map)?,
        version: version(map)?,
        reference: reference(map)?,
    })
}

/// Reads `emcc-cluster-id`.
///
/// # Errors
/// [`Unreadable`] when it is there and no cluster ID.
pub fn cluster_id(map: &MetadataMap) -> Result<Option<ClusterId>, Unreadable> {
    parsed(map, CLUSTER_ID)
}

/// Reads `emcc-version`; 1.0 when absent.
///
/// # Errors
/// [`Unreadable`] when it is there and no `major.minor`.
pub fn version(map: &MetadataMap) -> Result<Version, Unreadable> {
    Ok(parsed(map, VERSION)?.unwrap_or(Version::V1_0))
}

/// Reads `emcc-ref`.
///
/// # Errors
/// [`Unreadable`] when it is there and no reference.
pub fn reference(map: &MetadataMap) -> Result<Option<Ref>, Unreadable> {
    parsed(map, REF)
}

/// Writes all three keys, in place of what was there.
pub fn write(map: &mut MetadataMap, cluster: &ClusterId, version: Version, reference: Ref) {
    put(map, CLUSTER_ID, cluster.as_str());
    put(map, VERSION, &version.to_string());
    write_reference(map, reference);
}

/// Writes `emcc-ref` alone, for answers.
pub fn write_reference(map: &mut MetadataMap, reference: Ref) {
    put(map, REF, &reference.compact());
}

fn put(map: &mut MetadataMap, key: &'static str, text: &str) {
    // Cluster IDs, versions and references are visible ASCII by their rules: this always parses.
    if let Ok(value) = MetadataValue::<Ascii>::try_from(text) {
        map.insert(key, value);
    }
}

/// The one value of a key. Two values of one key are no answer to "who are you".
fn parsed<T: std::str::FromStr>(
    map: &MetadataMap,
    key: &'static str,
) -> Result<Option<T>, Unreadable> {
    let mut values = map.get_all(key).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let unreadable = Unreadable { key };
    if values.next().is_some() {
        return Err(unreadable);
    }
    let text = value.to_str().map_err(|_| unreadable)?;
    text.parse().map(Some).map_err(|_| unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&'static str, &str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (key, text) in entries {
            map.append(*key, text.parse().unwrap());
        }
        map
    }

    #[test]
    fn what_is_written_is_read() {
        let cluster = ClusterId::new("berlin").unwrap();
        let reference: Ref = "7K3Q-9M2X".parse().unwrap();
        let mut map = map(&[(CLUSTER_ID, "stale")]);
        write(&mut map, &cluster, Version::V1_1, reference);
        let expected = CallMetadata {
            cluster_id: Some(cluster),
            version: Version::V1_1,
            reference: Some(reference),
        };
        assert_eq!(read(&map), Ok(expected));
        assert_eq!(map.get(REF).unwrap(), "7K3Q9M2X");
    }

    #[test]
    fn a_silent_caller_speaks_1_0() {
        let call = read(&MetadataMap::new()).unwrap();
        assert_eq!((call.cluster_id, call.reference), (None, None));
        assert_eq!(call.version, Version::V1_0);
    }

    #[test]
    fn garbage_is_refused_by_key() {
        for (key, text) in [
            (CLUSTER_ID, "ber lin"),
            (VERSION, "1"),
            (VERSION, "1.x"),
            (REF, "!"),
        ] {
            assert_eq!(
                read(&map(&[(key, text)])),
                Err(Unreadable { key }),
                "{key}: {text}"
            );
        }
    }

    #[test]
    fn two_cluster_ids_are_none() {
        let map = map(&[(CLUSTER_ID, "berlin"), (CLUSTER_ID, "tokyo")]);
        assert_eq!(cluster_id(&map), Err(Unreadable { key: CLUSTER_ID }));
    }
}
