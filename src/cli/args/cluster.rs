//! `cluster`: what can be typed about peers.

use std::path::PathBuf;

use clap::{
    ArgGroup, Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::domain::{
    announcement::{Acceptance, NoAcceptance},
    ids::ClusterId,
    pairing::InvitationId,
};

fn acceptance() -> impl TypedValueParser<Value = Acceptance> {
    PossibleValuesParser::new(Acceptance::WORDS)
        .try_map(|word| word.parse::<Acceptance>().map_err(|e: NoAcceptance| e))
}

/// `cluster`.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// How each peer stands, in both directions, and what to do where one does not
    #[command(
        after_help = "Examples:\n  emccd cluster status\n  emccd cluster status --wait 30s    end as soon as all links are up, in both directions"
    )]
    Status,
    /// The peer records
    #[command(after_help = "Example:\n  emccd cluster list --json")]
    List,
    /// Add a peer and its first trust, both or neither
    Add(ClusterAdd),
    /// Change a peer's record; what is not named stays
    Set(ClusterSet),
    /// Remove a peer with its trust; sessions shared with it end first, and it is told
    Remove(ClusterRemove),
    /// Invite another cluster to become a peer, and see it through
    Invite(ClusterInvite),
    /// Use an invitation of another cluster, and see it through
    Join(ClusterJoin),
    /// Try the link to a peer at once, and say what came of it
    #[command(after_help = "Example:\n  emccd cluster refresh tokyo")]
    Refresh {
        /// The peer's cluster ID
        #[arg(value_name = "ID")]
        cluster_id: ClusterId,
    },
}

/// `cluster invite`.
#[derive(Debug, Args)]
#[command(
    after_help = "It prints one line, which the operator of the other cluster gives to `emccd cluster join`. Whoever has it may \
    join, once; both operators then compare words and confirm, and nothing is trusted before.\n\n\
    Examples:\n  \
    emccd cluster invite\n  \
    emccd cluster invite --minutes 10 --address emcc.berlin.example:8444 --name Berlin\n  \
    emccd cluster invite --no-wait    print it, and come back later\n  \
    emccd cluster invite --list\n  \
    emccd cluster invite --confirm 5f0c9e2a71b3d846 --yes --words \"abandon ability able about above absent\""
)]
pub struct ClusterInvite {
    /// How long it counts
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub minutes: u32,
    /// Where the other cluster reaches this one; may be repeated. What the nodes say of themselves when left out
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Vec<String>,
    /// What the other cluster is to know this one by
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub name: String,
    /// What is done with those that are there.
    #[command(flatten)]
    pub verbs: PairingVerbs,
}

/// `cluster join`.
#[derive(Debug, Args)]
#[command(
    after_help = "The invitation is read from standard input, or from a file: on the command line every process of this machine \
    could read it.\n\n\
    Examples:\n  \
    emccd cluster join\n  \
    emccd cluster join --token-file invitation.txt --address emcc.tokyo.example:8444 --name Tokyo\n  \
    emccd cluster join --list\n  \
    emccd cluster join --confirm 5f0c9e2a71b3d846 --yes --words \"abandon ability able about above absent\""
)]
pub struct ClusterJoin {
    /// A file with the invitation
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where the other cluster reaches this one; may be repeated. What the nodes say of themselves when left out
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Vec<String>,
    /// What the other cluster is to know this one by
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub name: String,
    /// What is done with those that are there.
    #[command(flatten)]
    pub verbs: PairingVerbs,
}

/// What can be done with pairings that are there, on either side.
#[derive(Debug, Args)]
pub struct PairingVerbs {
    /// Do not wait for the other side
    #[arg(long)]
    pub no_wait: bool,
    /// Show what there is, and how it stands
    #[arg(long, conflicts_with_all = ["cancel", "confirm"])]
    pub list: bool,
    /// Take an invitation back, or end a pairing that is not confirmed
    #[arg(long, value_name = "ID", conflicts_with = "confirm")]
    pub cancel: Option<InvitationId>,
    /// Say that the words are the same on both sides
    #[arg(long, value_name = "ID")]
    pub confirm: Option<InvitationId>,
    /// The words as the other operator has read them out, to be compared
    #[arg(long, value_name = "WORDS", requires = "confirm")]
    pub words: Option<String>,
    /// Where the other cluster is a peer already: trust what it shows now as well
    #[arg(long)]
    pub update: bool,
    /// Do not ask: the words that are given decide
    #[arg(long, requires = "words")]
    pub yes: bool,
}

/// `cluster remove`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd cluster remove tokyo\n  emccd cluster remove tokyo --forget-owed --yes"
)]
pub struct ClusterRemove {
    /// The peer's cluster ID
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// Also when it has still to be told of ends of sessions: it never will be
    #[arg(long)]
    pub forget_owed: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `cluster add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    emccd cluster add tokyo --address emcc.tokyo.example:8444 --trust tokyo.pem\n  \
    emccd cluster add tokyo --address emcc.tokyo.example:8444 --anchor corporate-ca.pem --node-name emcc.tokyo.example")]
pub struct ClusterAdd {
    /// The peer's cluster ID
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// Where its nodes listen; may be repeated, tried in order
    #[arg(long, value_name = "HOST:PORT", required = true)]
    pub address: Vec<String>,
    /// PEM file with the certificates of its nodes: exactly these are accepted
    #[arg(long, value_name = "FILE.pem", conflicts_with = "anchor")]
    pub trust: Option<PathBuf>,
    /// PEM file with its certificate authority, which vouches for the names given with --node-name
    #[arg(long, value_name = "FILE.pem", requires = "node_name")]
    pub anchor: Option<PathBuf>,
    /// A name that its certificates may carry under an anchor; may be repeated
    #[arg(long, value_name = "NAME")]
    pub node_name: Vec<String>,
    /// Which user IDs it may claim, with * and ?; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub user_pattern: Vec<String>,
    /// Which extensions it may claim, with * and ?; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub dn_pattern: Vec<String>,
    /// Overlook that its certificates are not marked for the direction in which they are shown
    #[arg(long)]
    pub ignore_eku: bool,
    /// What becomes of certificates that it announces as its next ones: auto, trusted at once; approve, they wait
    /// until an operator agrees; off, refused
    #[arg(long, value_name = "HOW", value_parser = acceptance(), default_value = "auto")]
    pub accept_announcements: Acceptance,
    /// A note for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub description: String,
}

/// `cluster set`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("change").required(true).multiple(true).args([
        "address", "node_name", "user_pattern", "dn_pattern", "enabled", "allow_emcc", "ignore_eku", "accept_announcements",
        "description",
    ]),
    after_help = "A list that is given takes the place of the old one; one empty word, '', empties it.\n\n\
    Examples:\n  \
    emccd cluster set tokyo --address emcc1.tokyo.example:8444 --address emcc2.tokyo.example:8444\n  \
    emccd cluster set tokyo --enabled false\n  \
    emccd cluster set tokyo --user-pattern ''"
)]
pub struct ClusterSet {
    /// The peer's cluster ID
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// Where its nodes listen; may be repeated, tried in order
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Vec<String>,
    /// A name that its certificates may carry under an anchor; may be repeated
    #[arg(long, value_name = "NAME")]
    pub node_name: Vec<String>,
    /// Which user IDs it may claim, with * and ?; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub user_pattern: Vec<String>,
    /// Which extensions it may claim, with * and ?; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub dn_pattern: Vec<String>,
    /// Whether there is a link to it at all
    #[arg(long, value_name = "BOOL")]
    pub enabled: Option<bool>,
    /// Whether its phones may carry our users
    #[arg(long, value_name = "BOOL")]
    pub allow_emcc: Option<bool>,
    /// Overlook that its certificates are not marked for the direction in which they are shown
    #[arg(long, value_name = "BOOL")]
    pub ignore_eku: Option<bool>,
    /// What becomes of certificates that it announces as its next ones: auto, trusted at once; approve, they wait
    /// until an operator agrees; off, refused
    #[arg(long, value_name = "HOW", value_parser = acceptance())]
    pub accept_announcements: Option<Acceptance>,
    /// A note for people
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}
