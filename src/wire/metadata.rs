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
        assert_eq!(cluster_id(&map), Ok(Some(cluster)));
        assert_eq!(version(&map), Ok(Version::V1_1));
        assert_eq!(super::reference(&map), Ok(Some(reference)));
        assert_eq!(map.get(REF).unwrap(), "7K3Q9M2X");
    }

    #[test]
    fn a_silent_caller_speaks_1_0() {
        let silent = MetadataMap::new();
        assert_eq!(cluster_id(&silent), Ok(None));
        assert_eq!(reference(&silent), Ok(None));
        assert_eq!(version(&silent), Ok(Version::V1_0));
    }

    #[test]
    fn garbage_is_refused_by_key() {
        let with = |key, text| map(&[(key, text)]);
        assert_eq!(
            cluster_id(&with(CLUSTER_ID, "ber lin")),
            Err(Unreadable { key: CLUSTER_ID })
        );
        for text in ["1", "1.x"] {
            assert_eq!(
                version(&with(VERSION, text)),
                Err(Unreadable { key: VERSION }),
                "{text}"
            );
        }
        assert_eq!(reference(&with(REF, "!")), Err(Unreadable { key: REF }));
    }

    #[test]
    fn two_cluster_ids_are_none() {
        let map = map(&[(CLUSTER_ID, "berlin"), (CLUSTER_ID, "tokyo")]);
        assert_eq!(cluster_id(&map), Err(Unreadable { key: CLUSTER_ID }));
    }
}
