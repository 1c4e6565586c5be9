//! `Hello` and `Watch`: who is there, what it speaks, and its signs of life.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    domain::{
        accepted::{Accepted, AcceptedKind, AcceptedList, MAX_ACCEPTED},
        address_list::{AddressList, MAX_ADDRESS_BYTES, MAX_ADDRESSES},
        ids::ClusterId,
        login::SecurityMode,
        version::{Version, VersionRange},
    },
    wire::{
        federation::announce::fingerprint,
        malformed::{self, Malformed},
        pb, time,
    },
};

const CAPABILITIES_MAX: usize = 64;
const CAPABILITY_BYTES: usize = 64;
const DISPLAY_BYTES: usize = 255;
const INSTANCE_BYTES: usize = 64;
const REASON_BYTES: usize = 512;

/// What a node tells of itself, as a caller and as the called one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it speaks.
    pub versions: VersionRange,
    /// Its optional features.
    pub capabilities: Vec<String>,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its name, for display.
    pub node: String,
    /// Which start of the node this is; empty when it does not tell.
    pub instance: String,
    /// Its software, for display.
    pub software: String,
    /// Its wall clock; 1970 when it did not tell.
    pub now: Timestamp,
    /// Security mode of its cluster.
    pub security_mode: SecurityMode,
    /// Sequence number of its trust bundle, or 0.
    pub trust_sequence: u64,
    /// Sequence number of its address list, or 0.
    pub address_sequence: u64,
}

/// One sign of life on the watched link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Counts up by one, from 1.
    pub sequence: u64,
    /// The sender's wall clock; 1970 when it did not tell.
    pub now: Timestamp,
    /// How long ago the sender last had proof of us as a caller; none when its own link is down.
    pub reverse_proof_age: Option<Duration>,
    /// Why the sender's own link to us is down; empty when it is up.
    pub reverse_down_reason: String,
    /// Whether the sender is shutting down.
    pub draining: bool,
    /// Where the sender's cluster can be dialled; none when that has not changed on this stream.
    pub addresses: Option<AddressList>,
    /// What the sender's cluster accepts from us; none when that has not changed on this stream.
    pub accepted: Option<AcceptedList>,
    /// Grows each time that the sender could not deliver ends of sessions to our cluster.
    pub session_ends: u64,
}

impl From<Version> for pb::Version {
    fn from(version: Version) -> Self {
        Self {
            major: version.major,
            minor: version.minor,
        }
    }
}

impl From<pb::Version> for Version {
    fn from(version: pb::Version) -> Self {
        Self {
            major: version.major,
            minor: version.minor,
        }
    }
}

impl From<VersionRange> for pb::VersionRange {
    fn from(range: VersionRange) -> Self {
        Self {
            min: Some(range.min().into()),
            max: Some(range.max().into()),
        }
    }
}

impl TryFrom<pb::VersionRange> for VersionRange {
    type Error = Malformed;

    fn try_from(range: pb::VersionRange) -> Result<Self, Malformed> {
        let min = malformed::required("versions.min", range.min)?;
        let max = malformed::required("versions.max", range.max)?;
        Self::new(min.into(), max.into()).ok_or_else(|| {
            Malformed::new(
                "versions",
                "a range within one major version, the lower end first",
            )
        })
    }
}

/// The mode for the wire.
pub(super) const fn from_security_mode(mode: SecurityMode) -> pb::SecurityMode {
    match mode {
        SecurityMode::NonSecure => pb::SecurityMode::NonSecure,
        SecurityMode::Secure => pb::SecurityMode::Secure,
    }
}

/// The mode from the wire; one that isn't told or known is non-secure.
pub(super) fn to_security_mode(mode: i32) -> SecurityMode {
    match pb::SecurityMode::try_from(mode) {
        Ok(pb::SecurityMode::Secure) => SecurityMode::Secure,
        Ok(pb::SecurityMode::NonSecure | pb::SecurityMode::Unspecified) | Err(_) => {
            SecurityMode::NonSecure
        }
    }
}

/// The two messages of `Hello` have the same fields, in two types.
macro_rules! hello_message {
    ($message:ident) => {
        impl From<&Hello> for pb::$message {
            fn from(hello: &Hello) -> Self {
                Self {
                    versions: Some(hello.versions.into()),
                    capabilities: hello.capabilities.clone(),
                    cluster_id: hello.cluster_id.to_string(),
                    node: hello.node.clone(),
                    instance: hello.instance.clone(),
                    software: hello.software.clone(),
                    now: Some(time::timestamp(hello.now)),
                    security_mode: from_security_mode(hello.security_mode).into(),
                    trust_sequence: hello.trust_sequence,
                    address_sequence: hello.address_sequence,
                }
            }
        }

        impl From<Hello> for pb::$message {
            fn from(hello: Hello) -> Self {
                Self::from(&hello)
            }
        }

        impl TryFrom<pb::$message> for Hello {
            type Error = Malformed;

            fn try_from(message: pb::$message) -> Result<Self, Malformed> {
                Ok(Self {
                    versions: message
                        .versions
                        .map_or(Ok(VersionRange::ONLY_1_0), VersionRange::try_from)?,
                    capabilities: malformed::list(
                        "capabilities",
                        message.capabilities,
                        CAPABILITIES_MAX,
                        |name| malformed::text("capabilities", name, CAPABILITY_BYTES),
                    )?,
                    cluster_id: malformed::name("cluster_id", message.cluster_id)?,
                    node: malformed::text("node", message.node, DISPLAY_BYTES)?,
                    instance: malformed::text("instance", message.instance, INSTANCE_BYTES)?,
                    software: malformed::text("software", message.software, DISPLAY_BYTES)?,
                    now: told_time(message.now.as_ref()),
                    security_mode: to_security_mode(message.security_mode),
                    trust_sequence: message.trust_sequence,
                    address_sequence: message.address_sequence,
                })
            }
        }
    };
}

hello_message!(HelloRequest);
hello_message!(HelloResponse);

impl From<&Beat> for pb::WatchResponse {
    fn from(beat: &Beat) -> Self {
        Self {
            sequence: beat.sequence,
            now: Some(time::timestamp(beat.now)),
            reverse_proof_age: beat.reverse_proof_age.map(time::duration),
            reverse_down_reason: beat.reverse_down_reason.clone(),
            draining: beat.draining,
            addresses: beat.addresses.as_ref().map(|list| pb::AddressList {
                sequence: list.sequence,
                addresses: list.addresses.clone(),
            }),
            accepted: beat.accepted.as_ref().map(write_accepted),
            session_ends: beat.session_ends,
        }
    }
}

impl From<Beat> for pb::WatchResponse {
    fn from(beat: Beat) -> Self {
        Self::from(&beat)
    }
}

impl TryFrom<pb::WatchResponse> for Beat {
    type Error = Malformed;

    fn try_from(message: pb::WatchResponse) -> Result<Self, Malformed> {
        Ok(Self {
            sequence: message.sequence,
            now: told_time(message.now.as_ref()),
            reverse_proof_age: message.reverse_proof_age.as_ref().map(time::duration_from),
            reverse_down_reason: malformed::text(
                "reverse_down_reason",
                message.reverse_down_reason,
                REASON_BYTES,
            )?,
            draining: message.draining,
            addresses: message.addresses.map(read_addresses).transpose()?,
            accepted: message.accepted.map(read_accepted).transpose()?,
            session_ends: message.session_ends,
        })
    }
}

fn read_addresses(list: pb::AddressList) -> Result<AddressList, Malformed> {
    Ok(AddressList {
        sequence: list.sequence,
        addresses: malformed::list("addresses", list.addresses, MAX_ADDRESSES, |address| {
            malformed::text("addresses", address, MAX_ADDRESS_BYTES)
        })?,
    })
}

fn write_accepted(list: &AcceptedList) -> pb::AcceptedCertificates {
    let certificates = list.certificates.iter();
    pb::AcceptedCertificates {
        sequence: list.sequence,
        certificates: certificates
            .map(|accepted| pb::AcceptedCertificate {
                fingerprint: accepted.fingerprint.to_vec(),
                kind: match accepted.kind {
                    AcceptedKind::Pinned => pb::AcceptedKind::Pinned,
                    AcceptedKind::Anchor => pb::AcceptedKind::Anchor,
                    AcceptedKind::Waiting => pb::AcceptedKind::Waiting,
                    AcceptedKind::Revoked => pb::AcceptedKind::Revoked,
                }
                .into(),
                until: accepted.until.map(time::timestamp),
            })
            .collect(),
    }
}

/// Entries of a kind that is not known here are left out.
fn read_accepted(list: pb::AcceptedCertificates) -> Result<AcceptedList, Malformed> {
    let entries = malformed::list(
        "accepted.certificates",
        list.certificates,
        MAX_ACCEPTED,
        |entry| {
            let kind = match pb::AcceptedKind::try_from(entry.kind) {
                Ok(pb::AcceptedKind::Pinned) => AcceptedKind::Pinned,
                Ok(pb::AcceptedKind::Anchor) => AcceptedKind::Anchor,
                Ok(pb::AcceptedKind::Waiting) => AcceptedKind::Waiting,
                Ok(pb::AcceptedKind::Revoked) => AcceptedKind::Revoked,
                Ok(pb::AcceptedKind::Unspecified) | Err(_) => return Ok(None),
            };
            Ok(Some(Accepted {
                fingerprint: fingerprint("accepted.certificates.fingerprint", &entry.fingerprint)?,
                kind,
                until: entry.until.as_ref().map(time::timestamp_from),
            }))
        },
    )?;
    Ok(AcceptedList {
        sequence: list.sequence,
        certificates: entries.into_iter().flatten().collect(),
    })
}

fn told_time(at: Option<&prost_types::Timestamp>) -> Timestamp {
    at.map(time::timestamp_from).unwrap_or_default()
}
