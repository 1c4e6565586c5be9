//! Records as operators see them: store and trust records → admin messages. Pure.

use crate::{
    clock::Timestamp,
    credentials::lockout,
    domain::{
        agreement::{agreed_until, still_held},
        ids::ClusterId,
        login::SecurityMode,
        policy::Rules,
    },
    edge::admin::error::Error,
    store::{
        agreements::Agreement,
        announcements::WaitingEntry,
        audit,
        credentials::Credential,
        devices::Device,
        peers::Peer,
        profiles::Profile,
        sessions::Session,
        trust_entries::{RevokedEntry, Source, TrustEntry},
        users::User,
    },
    trust::{
        certificate::{Certificate, fingerprint_text},
        crl::Crl,
        expiry::Alarm,
        forecast,
    },
    wire::admin as pb,
};

/// A peer record.
#[must_use]
pub fn cluster(peer: Peer) -> pb::Cluster {
    pb::Cluster {
        cluster_id: peer.cluster_id.to_string(),
        enabled: peer.enabled,
        allow_emcc: peer.allow_emcc,
        addresses: peer.addresses,
        node_names: peer.node_names,
        user_patterns: peer.user_patterns,
        dn_patterns: peer.dn_patterns,
        ignore_eku: peer.ignore_eku,
        accept_announcements: peer.accept_announcements.to_string(),
        description: peer.description,
    }
}

/// The readable part of a certificate.
#[must_use]
pub fn certificate(certificate: &Certificate) -> pb::Certificate {
    pb::Certificate {
        subject: certificate.subject().to_owned(),
        issuer: certificate.issuer().to_owned(),
        names: certificate
            .names()
            .iter()
            .map(ToString::to_string)
            .collect(),
        not_before: certificate.not_before().to_string(),
        not_after: certificate.not_after().to_string(),
        fingerprint: certificate.fingerprint_text(),
        is_ca: certificate.is_ca(),
    }
}

/// An entry of the audit.
#[must_use]
pub fn audit_entry(entry: audit::Recorded) -> pb::AuditEntry {
    pb::AuditEntry {
        node: entry.node,
        number: u64::try_from(entry.seq).unwrap_or(0),
        at: entry.at.to_string(),
        actor: entry.actor,
        action: entry.action,
        subject: entry.subject,
        outcome: entry.outcome,
        r#ref: entry.reference.map(|r| r.to_string()),
    }
}

/// The state of one node's audit.
#[must_use]
pub fn audit_chain(chain: &audit::Chain) -> pb::AuditChain {
    pb::AuditChain {
        node: chain.node.clone(),
        entries: u64::try_from(chain.entries).unwrap_or(0),
        fault: chain.fault.map(|fault| fault.to_string()),
        entry: chain.fault.and_then(|f| u64::try_from(f.entry()).ok()),
        head: chain.noted().to_string(),
    }
}

/// A trust entry.
///
/// # Errors
/// [`Error::Trust`] when what is stored is no certificate.
pub fn trust_entry(entry: &TrustEntry) -> Result<pb::TrustEntry, Error> {
    let read = Certificate::from_der(&entry.der)?;
    Ok(trust_entry_of(entry, &read))
}

/// A trust entry of which the certificate has been read.
#[must_use]
pub fn trust_entry_of(entry: &TrustEntry, read: &Certificate) -> pb::TrustEntry {
    pb::TrustEntry {
        cluster_id: entry.cluster_id.to_string(),
        kind: entry.kind.as_str().to_owned(),
        certificate: Some(certificate(read)),
        added_at: entry.added_at.to_string(),
        source: entry.source.to_string(),
        alias: entry.alias.clone().unwrap_or_default(),
        ..pb::TrustEntry::default()
    }
}

/// A certificate that a peer announced and that no operator has agreed to yet.
///
/// # Errors
/// [`Error::Trust`] when what is stored is no certificate.
pub fn waiting_entry(entry: &WaitingEntry) -> Result<pb::TrustEntry, Error> {
    let read = Certificate::from_der(&entry.der)?;
    Ok(pb::TrustEntry {
        cluster_id: entry.cluster_id.to_string(),
        kind: "waiting".to_owned(),
        certificate: Some(certificate(&read)),
        added_at: entry.since.to_string(),
        source: Source::Announced.to_string(),
        ..pb::TrustEntry::default()
    })
}

/// A trust entry on a certain day.
#[must_use]
pub fn forecast_entry(entry: &forecast::Entry) -> pb::ForecastEntry {
    pb::ForecastEntry {
        cluster_id: entry.cluster.to_string(),
        kind: entry.part.as_str().to_owned(),
        certificate: Some(certificate(&entry.certificate)),
        state: entry.state.as_str().to_owned(),
    }
}

/// What breaks by then.
#[must_use]
pub fn forecast_break(told: &forecast::Break) -> pb::ForecastBreak {
    pb::ForecastBreak {
        cluster_id: told.cluster.to_string(),
        whose: if told.is_ours { "ours" } else { "theirs" }.to_owned(),
        certificate: Some(certificate(&told.certificate)),
        at: told.at.to_string(),
        text: told.text.clone(),
    }
}

/// A revocation list.
#[must_use]
pub fn crl(cluster: &ClusterId, crl: &Crl, now: Timestamp) -> pb::Crl {
    pb::Crl {
        cluster_id: cluster.to_string(),
        issuer: Some(certificate(crl.issuer())),
        number: crl.number().to_owned(),
        this_update: crl.this_update().to_string(),
        next_update: crl.next_update().to_string(),
        is_strict: crl.is_strict(),
        is_stale: crl.is_stale(now),
        revoked: u32::try_from(crl.revoked()).unwrap_or(u32::MAX),
        added_at: None,
    }
}

/// A certificate that nears its end.
#[must_use]
pub fn certificate_alarm(alarm: &Alarm) -> pb::CertificateAlarm {
    pb::CertificateAlarm {
        owner: alarm.watched.owner.to_string(),
        purpose: alarm.watched.part.as_str().to_owned(),
        certificate: Some(certificate(&alarm.watched.certificate)),
        threshold: alarm.stage.word(),
        is_pressing: alarm.is_pressing(),
        text: alarm.text(),
        next: alarm.next(),
    }
}

/// What is refused from a peer, whoever vouches for it.
#[must_use]
pub fn revoked_entry(entry: &RevokedEntry) -> pb::TrustEntry {
    pb::TrustEntry {
        cluster_id: entry.cluster_id.to_string(),
        kind: "revoked".to_owned(),
        certificate: Some(pb::Certificate {
            fingerprint: fingerprint_text(&entry.fingerprint),
            ..pb::Certificate::default()
        }),
        added_at: entry.revoked_at.to_string(),
        ..pb::TrustEntry::default()
    }
}

/// A user.
#[must_use]
pub fn user(user: User) -> pb::User {
    pb::User {
        user_id: user.user_id.to_string(),
        self_service_id: user.self_service_id.map(Into::into),
        primary_extension: user.primary_extension.map(Into::into),
        display_name: user.display_name,
        enabled: user.enabled,
        emcc_enabled: user.emcc_enabled,
        policy: user.policy.map(Into::into),
    }
}

/// A device profile.
#[must_use]
pub fn profile(profile: Profile) -> pb::Profile {
    let lines = profile.lines.into_iter().map(|line| pb::ProfileLine {
        index: line.index,
        number: line.number,
        label: line.label,
    });
    pb::Profile {
        user_id: profile.user_id.into(),
        name: profile.name.into(),
        is_default: profile.is_default,
        lines: lines.collect(),
        locale: profile.locale,
        device_pool: profile.device_pool.map(Into::into),
        services: profile.services.into_iter().map(Into::into).collect(),
    }
}

/// How a PIN stands, at `now` in cluster time and by the user's policy; `shift` makes wall time of that, for people.
#[must_use]
pub fn pin_state(
    credential: Option<&Credential>,
    now: Timestamp,
    shift: i64,
    rules: Rules,
) -> pb::PinState {
    let locked_until = credential.and_then(|c| lockout::locked(c, now));
    pb::PinState {
        is_set: credential.is_some(),
        failures: credential.map_or(0, |c| lockout::counted(c, now, rules)),
        locked_until: locked_until.map(|t| t.shifted(shift).to_string()),
        must_change: credential.is_some_and(|c| c.must_change),
    }
}

/// A phone.
#[must_use]
pub fn device(device: Device) -> pb::Device {
    let security_mode = match device.security_mode {
        SecurityMode::NonSecure => "non-secure",
        SecurityMode::Secure => "secure",
    };
    pb::Device {
        name: device.name.into(),
        model: device.model,
        protocol: device.protocol,
        security_mode: security_mode.to_owned(),
        emcc: device.emcc,
        em_enabled: device.em_enabled,
        device_pool: device.device_pool.map(Into::into),
        geolocation: device.geolocation,
        location: device.location.map(Into::into),
        locale: device.locale,
        services: device.services.into_iter().map(Into::into).collect(),
    }
}

/// A session's row.
#[must_use]
pub fn session(session: &Session) -> pb::Session {
    let services = session.services.as_ref();
    pb::Session {
        id: session.id.to_string(),
        role: session.role.to_string(),
        peer: session.counterpart.to_string(),
        state: session.state.to_string(),
        device: session.device.to_string(),
        user_id: session.user_id.as_ref().map(ToString::to_string),
        login_type: session.login_type.to_string(),
        login_name: session.login_name.to_string(),
        profile: session.profile.as_ref().map(ToString::to_string),
        base_device: session.base_device.as_ref().map(ToString::to_string),
        r#ref: session.reference.to_string(),
        created_at: session.created_at.to_string(),
        deadline: session.deadline.map(|t| t.to_string()),
        ended_at: session.ended_at.map(|t| t.to_string()),
        end_reason: session.end_reason.map(|r| r.to_string()),
        initiator: session.initiator.map(|i| i.to_string()),
        owed: session.owed,
        reset: services.is_some_and(|services| services.reset),
        restart_reason: services.and_then(|services| services.restart_reason.clone()),
        parked: session.parked.clone(),
        parked_at: session.parked_at.map(|t| t.to_string()),
        owed_cause: None,
    }
}

/// How far we agree with a peer on the sessions that we share, as it is on record; `oldest` is when the oldest of them
/// began.
#[must_use]
pub fn agreement(
    record: &Agreement,
    oldest: Option<Timestamp>,
    now: Timestamp,
) -> pb::SessionAgreement {
    let age = |at: Timestamp| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
    let held_since = still_held(record.held_since, now);
    let state = match (held_since, record.passed_at) {
        (Some(_), _) => "held",
        _ if oldest.is_none() => "none",
        (None, None) => "unknown",
        (None, passed) if passed == record.agreed_at => "agreed",
        (None, Some(_)) => "mended",
    };
    pb::SessionAgreement {
        state: state.to_owned(),
        agreed_age_ms: agreed_until(record.agreed_at, oldest).map(age),
        held_ends: held_since.map_or(0, |_| record.held_ends),
        held_age_ms: held_since.map(age),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        domain::{ids::UserId, policy::BUILT_IN},
        store::credentials::Phc,
    };

    #[test]
    fn an_agreement_is_shown_as_old_as_what_is_in_doubt_and_a_hold_that_nobody_goes_by_is_not() {
        let at = |seconds: u64| Timestamp::default().plus(Duration::from_secs(seconds));
        let record = Agreement {
            passed_at: Some(at(10)),
            agreed_at: Some(at(10)),
            ..Agreement::default()
        };
        let night = 36_000;
        let told = |record: &Agreement, oldest: Option<u64>, now| {
            let shown = agreement(record, oldest.map(at), at(now));
            (shown.state, shown.agreed_age_ms, shown.held_ends)
        };
        let shown = |state: &str, age_ms, ends| (state.to_owned(), age_ms, ends);
        // Nothing was shared all night. The first session of the day has not been compared yet.
        assert_eq!(told(&record, None, night).0, "none");
        let first = told(&record, Some(night - 2), night);
        assert_eq!(first, shown("agreed", Some(2_000), 0));
        let all_night = told(&record, Some(5), night);
        assert_eq!(all_night, shown("agreed", Some(35_990_000), 0));
        let never = told(&Agreement::default(), Some(5), night);
        assert_eq!(never, shown("unknown", None, 0));
        // The link was lost while a mass end was held back.
        let held = Agreement {
            held_since: Some(at(20)),
            held_ends: 400,
            ..record
        };
        assert_eq!(told(&held, Some(5), 60), shown("held", Some(50_000), 400));
        let forgotten = told(&held, Some(5), night);
        assert_eq!(forgotten, shown("agreed", Some(35_990_000), 0));
    }

    #[test]
    fn a_pin_shows_wrong_ones_and_a_lock_as_long_as_they_count() {
        let at = |minutes: u64| Timestamp::default().plus(Duration::from_secs(minutes * 60));
        let mut row = Credential {
            user_id: UserId::new("ana").unwrap(),
            phc: Phc::new(String::new()),
            failures: 0,
            window_started: None,
            locked_until: None,
            must_change: false,
        };
        for _ in 0..4 {
            lockout::decide(&mut row, false, at(0), BUILT_IN);
        }
        let told = |row: &Credential, minutes| {
            let state = pin_state(Some(row), at(minutes), 60_000, BUILT_IN);
            (state.failures, state.locked_until)
        };
        assert_eq!(told(&row, 30), (4, None));
        assert_eq!(told(&row, 31), (0, None));
        lockout::decide(&mut row, false, at(0), BUILT_IN);
        assert_eq!(told(&row, 14), (5, Some(at(16).to_string())));
        assert_eq!(told(&row, 15), (0, None));
    }
}
