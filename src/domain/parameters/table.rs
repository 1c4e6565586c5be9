//! The list of parameters, and the incumbent's that are not taken over. Pure.

use crate::domain::parameters::kind::{Kind, Place};

/// One parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Its name, the incumbent's where it has one.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What holds when nobody has set it, as one would write it.
    pub default: &'static str,
    /// What it does: full sentences.
    pub meaning: &'static str,
    /// Why the default is what it is: the end of a sentence that begins with "because".
    pub why: &'static str,
    /// What it replaces at the incumbent, and how it differs; empty where there was nothing.
    pub replaces: &'static str,
}

/// A parameter of the incumbent that this software doesn't have.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: &'static str,
    /// Why: the end of a sentence that begins with "because".
    pub why: &'static str,
}

macro_rules! place {
    ($field:ident) => {
        Place {
            get: |all| &all.$field,
            get_mut: |all| &mut all.$field,
        }
    };
}

/// Every parameter, those that belong together side by side.
pub const TABLE: &[Parameter] = &[
    Parameter {
        name: "maximum-concurrent-requests",
        kind: Kind::Count(1, 4096, place!(maximum_concurrent_requests)),
        default: "256",
        meaning: "How many logins of its phones one node works on at a time, and as many again of other clusters' \
                  phones, and of logouts. Further ones wait for their turn, which clusters and addresses take one \
                  after the other. Whoever could not be served in time is told at once to try again (26), and \
                  when.",
        why: "a whole shift can log in at once, and memory stays bounded",
        replaces: "Maximum Concurrent Requests: 5, up to 100, without a line to wait in",
    },
    Parameter {
        name: "multiple-login-behavior",
        kind: Kind::MultipleLogin(place!(multiple_login_behavior)),
        default: "not-allowed",
        meaning: "What becomes of a user who is on one phone and logs in on another: both stay (allowed), the \
                  new login is refused with 25 (not-allowed), or the old one ends (auto-logout). Decided by the \
                  user's home cluster, for its own phones and for those of all others.",
        why: "it is what operators know, and nobody's calls move without their knowing",
        replaces: "Multiple Login Behavior: Multiple Logins Not Allowed. Older releases had it for local logins \
                   only; here it holds across clusters always",
    },
    Parameter {
        name: "multiple-login-unreachable",
        kind: Kind::Unreachable(place!(multiple_login_unreachable)),
        default: "take-over",
        meaning: "With multiple-login-behavior auto-logout: what a login does when the cluster of the earlier \
                  session can't be reached by any of our nodes. With take-over the old session ends here, and that cluster is told \
                  when its link is up again; with refuse the new login gets 25.",
        why: "whoever stands before the phone matters more than a phone that nobody can reach",
        replaces: "",
    },
    Parameter {
        name: "enforce-intra-cluster-maximum-login-time",
        kind: Kind::Switch(place!(enforce_intra_cluster_maximum_login_time)),
        default: "off",
        meaning: "Whether a login on a phone of the user's own cluster may last no longer than \
                  intra-cluster-maximum-login-time. One that is over ends by itself, within five seconds.",
        why: "a desk that is somebody's for the day should not log them out in a call",
        replaces: "Enforce Intra-cluster Maximum Login Time: False. It does not switch itself on when a time is \
                   set",
    },
    Parameter {
        name: "intra-cluster-maximum-login-time",
        kind: Kind::Time(place!(intra_cluster_maximum_login_time)),
        default: "8:00",
        meaning: "How long such a login may last. 0:00 is no limit.",
        why: "it is a working day",
        replaces: "Intra-cluster Maximum Login Time: 8:00, 0:00 to 168:00",
    },
    Parameter {
        name: "inter-cluster-maximum-login-time",
        kind: Kind::Time(place!(inter_cluster_maximum_login_time)),
        default: "10:00",
        meaning: "How long a login on a phone of another cluster may last. The home cluster's value holds. 0:00 \
                  is no limit. Home ends a session that is over within five seconds, whatever becomes of wall \
                  clocks; the visiting cluster a minute later, where home's word does not come.",
        why: "nobody is on a phone abroad for longer than a long day",
        replaces: "Inter-cluster Maximum Login Time: 10:00",
    },
    Parameter {
        name: "emcc-geolocation-filter",
        kind: Kind::CivicFields(place!(emcc_geolocation_filter)),
        default: "none",
        meaning: "Which civic address fields count when home chooses the roaming pool for a phone of another \
                  cluster: the pool with the most matching ones wins. With none all fields count.",
        why: "a pool that says more about its place is meant for it",
        replaces: "EMCC Geolocation Filter: none. The fields themselves take the place of a filter record",
    },
    Parameter {
        name: "validate-ip-address",
        kind: Kind::Switch(place!(validate_ip_address)),
        default: "off",
        meaning: "Whether a request for a phone must come from an address in trusted-ips. Otherwise it is \
                  refused with 28, or with 30 when it came through a proxy.",
        why: "phones change their addresses, and a PIN is asked for all the same",
        replaces: "Validate IP Address: False. There is no cache of addresses: what counts is the list",
    },
    Parameter {
        name: "trusted-ips",
        kind: Kind::Addresses(place!(trusted_ips)),
        default: "none",
        meaning: "With validate-ip-address on: the addresses from which requests for any phone are taken.",
        why: "nobody is trusted by their address unless an operator says so",
        replaces: "Trusted List of IPs: empty, at most 1024 characters. Addresses only: a name would make every \
                   login wait for DNS, and believe it",
    },
    Parameter {
        name: "allow-proxy",
        kind: Kind::Switch(place!(allow_proxy)),
        default: "off",
        meaning: "With validate-ip-address on: whether requests that came through a proxy are taken.",
        why: "a proxy hides whose address it is that was checked",
        replaces: "Allow Proxy, and EMCC Allow Proxy: one switch for both",
    },
    Parameter {
        name: "unknown-user-answer",
        kind: Kind::UnknownUser(place!(unknown_user_answer)),
        default: "unknown",
        meaning: "What a phone of this cluster shows when no cluster has the user that was typed: that there is \
                  none (23), or with as-wrong-pin the same as for a user of this cluster and a wrong PIN (201), \
                  with the same text and after as long a check. The search at other clusters comes before it and \
                  takes its own time. Our own log and audit say what it was.",
        why: "whoever mistypes their name should not be sent to look for their PIN",
        replaces: "",
    },
    Parameter {
        name: "end-sessions-on-revocation",
        kind: Kind::Switch(place!(end_sessions_on_revocation)),
        default: "on",
        meaning: "Whether a user's sessions end when the user is disabled, and a peer's sessions when the peer \
                  is removed, which is told first, when nothing is accepted from it any more, and when it has \
                  said for five minutes that it has revoked what it accepted from us. While it is off, a peer with \
                  sessions is not removed.",
        why: "whoever takes a right away means now",
        replaces: "",
    },
    Parameter {
        name: "default-tftp-server-for-emcc-login-device",
        kind: Kind::Host(place!(default_tftp_server)),
        default: "none",
        meaning: "The TFTP server that a phone of another cluster is given for one of our users. With none it \
                  is given those of the device pool.",
        why: "the device pool knows the nearest one",
        replaces: "Default TFTP Server for EMCC Login Device: none",
    },
    Parameter {
        name: "backup-tftp-server-for-emcc-login-device",
        kind: Kind::Host(place!(backup_tftp_server)),
        default: "none",
        meaning: "A further one, behind the default one, or behind those of the device pool where no default one is set.",
        why: "the device pool knows the nearest one",
        replaces: "Backup TFTP Server for EMCC Login Device: none",
    },
    Parameter {
        name: "certificate-renew-before",
        kind: Kind::Count(0, 365, place!(certificate_renew_before)),
        default: "0",
        meaning: "How many days before its end a node exchanges a self-signed certificate of its own: it announces \
                  the next one, shows it once every enabled peer has it, and lets the old one go once no link rests \
                  on it. Of one that an authority signed it tells that it is time. 0 is never.",
        why: "a certificate is exchanged when somebody has decided so",
        replaces: "",
    },
    Parameter {
        name: "certificate-renew-jitter",
        kind: Kind::Count(0, 60, place!(certificate_renew_jitter)),
        default: "3",
        meaning: "By how many days that may be later, by the certificate, so that nodes don't all do it on the same \
                  day. It never takes more than half of certificate-renew-before.",
        why: "what goes wrong with the first is seen before the next",
        replaces: "",
    },
    Parameter {
        name: "certificate-renew-override-before",
        kind: Kind::Count(0, 30, place!(certificate_renew_override_before)),
        default: "1",
        meaning: "How many days before the end of the old certificate the next one is shown although some peers have \
                  not said that they have it: they are still called with the old one while it is valid. Counts with \
                  certificate-renew-before only.",
        why: "a peer that stays silent must not take the links to all others along",
        replaces: "",
    },
    Parameter {
        name: "certificate-drain-time",
        kind: Kind::Count(0, 3600, place!(certificate_drain_time)),
        default: "30",
        meaning: "Within how many seconds after a node shows a new certificate peers are told to begin their \
                  connections to it anew, one after the other. Calls under way finish.",
        why: "peers that all come at once would wait for one another's handshakes",
        replaces: "",
    },
];

/// The incumbent's parameters that are not taken over.
pub const NOT_TAKEN_OVER: &[LeftOut] = &[
    LeftOut {
        name: "alphanumeric-user-id",
        why: "the login page takes letters and digits always",
    },
    LeftOut {
        name: "backup-server-for-remote-cluster-update",
        why: "a peer learns the addresses of all our nodes over its link",
    },
    LeftOut {
        name: "clear-call-logs-on-intra-cluster-em",
        why: "the call log belongs to the phone and its call control",
    },
    LeftOut {
        name: "css-for-pstn-access-sip-trunk",
        why: "calls are routed by call control; no call passes through this software",
    },
    LeftOut {
        name: "default-interval-for-expired-emcc-device-maintenance",
        why: "a base device is free the moment its session ends, and expiry is kept as data",
    },
    LeftOut {
        name: "default-server-for-remote-cluster-update",
        why: "a peer learns the addresses of all our nodes over its link",
    },
    LeftOut {
        name: "emcc-allow-proxy",
        why: "allow-proxy holds for logins of both kinds",
    },
    LeftOut {
        name: "emcc-region-link-loss-type",
        why: "media are call control's business, and values that must be kept equal by hand drift apart",
    },
    LeftOut {
        name: "emcc-region-max-audio-bit-rate",
        why: "media are call control's business, and values that must be kept equal by hand drift apart",
    },
    LeftOut {
        name: "emcc-region-max-video-call-bit-rate",
        why: "media are call control's business, and values that must be kept equal by hand drift apart",
    },
    LeftOut {
        name: "enable-all-remote-cluster-services-when-adding-a-new-remote-cluster",
        why: "a peer has one service, and adding it enables it",
    },
    LeftOut {
        name: "extension-mobility-cache-size",
        why: "no address of a phone is cached",
    },
    LeftOut {
        name: "per-user-maximum-login-time",
        why: "users have no login time of their own: intra- and inter-cluster-maximum-login-time hold for all",
    },
    LeftOut {
        name: "remember-the-last-user-logged-in",
        why: "the login page never tells who was there before",
    },
    LeftOut {
        name: "remote-cluster-update-interval",
        why: "a link proves itself every few seconds (federation.heartbeat), and is never polled",
    },
    LeftOut {
        name: "rsvp-sip-trunk-keepalive-timer",
        why: "there are no SIP trunks here",
    },
    LeftOut {
        name: "trusted-list-of-ips",
        why: "its name here is trusted-ips",
    },
];
