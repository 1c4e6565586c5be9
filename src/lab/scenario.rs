//! The steps of a lab: real phones' requests through real logins, logouts and errors, and what must come of each.
//!
//! The names are a contract that programs rely on; `docs/lab.md` lists them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Cluster, Lab,
    held::{Expected, agree, holdings, nothing_owed, reason, refused_as},
    member::Versions,
    phone::Shown,
    report::Step,
};
use crate::{
    domain::{ids::ClusterId, login::LoginType, rejection::Rejection, version::Version},
    wire::admin as pb,
};

/// One step: what happens, to be carried out by [`carry_out`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A login across clusters by a login type, then what both hold.
    RemoteLogin(LoginType),
    /// The logout of the phone that the last login took.
    Logout(&'static str),
    /// A user of the phone's own cluster.
    LocalLogin,
    /// The logout after [`Plan::LocalLogin`].
    LocalLogout,
    /// A user that no cluster has: 23.
    UnknownUser,
    /// A wrong PIN: 2.
    WrongPin,
    /// An extension of several users: 47.
    SharedExtension,
    /// A phone with Extension Mobility off: 22.
    PhoneDisabled,
    /// A phone that somebody is on: 18.
    PhoneOccupied,
    /// More logins than base devices: 33.
    PoolDry,
    /// A home that speaks 1.0: UID works, DN is 1.
    OldHome(LoginType),
    /// No version in common: 1.
    NoCommonVersion,
    /// Home is down: 208, never 23.
    PeerDown,
    /// Home is back.
    PeerBack,
    /// A logout while home is down: it is done on the phone, and home hears of it when it is back.
    OwedLogout,
    /// Home's certificate is not trusted: 208, with the reason on both sides.
    Untrusted,
    /// Home's certificate is the old one again.
    TrustedAgain,
}

impl Plan {
    /// The step's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RemoteLogin(LoginType::Uid) => "uid-login",
            Self::RemoteLogin(LoginType::SelfService) => "sp-login",
            Self::RemoteLogin(LoginType::Extension) => "dn-login",
            Self::Logout(name) => name,
            Self::LocalLogin => "local-login",
            Self::LocalLogout => "local-logout",
            Self::UnknownUser => "unknown-user",
            Self::WrongPin => "wrong-pin",
            Self::SharedExtension => "shared-extension",
            Self::PhoneDisabled => "phone-disabled",
            Self::PhoneOccupied => "phone-occupied",
            Self::PoolDry => "base-devices-exhausted",
            Self::OldHome(LoginType::Uid) => "old-home-uid",
            Self::OldHome(LoginType::SelfService) => "old-home-sp",
            Self::OldHome(LoginType::Extension) => "old-home-dn",
            Self::NoCommonVersion => "no-common-version",
            Self::PeerDown => "peer-down",
            Self::PeerBack => "peer-back",
            Self::OwedLogout => "owed-logout",
            Self::Untrusted => "peer-untrusted",
            Self::TrustedAgain => "peer-trusted-again",
        }
    }
}

/// The steps that a lab of this shape can show. With one cluster there is only the local way.
#[must_use]
pub fn steps(lab: &Lab) -> VecDeque<Plan> {
    use LoginType::{Extension, SelfService, Uid};
    if lab.clusters.len() < 2 {
        return VecDeque::from([Plan::LocalLogin, Plan::LocalLogout, Plan::PhoneDisabled]);
    }
    VecDeque::from([
        Plan::RemoteLogin(Uid),
        Plan::Logout("uid-logout"),
        Plan::RemoteLogin(SelfService),
        Plan::Logout("sp-logout"),
        Plan::RemoteLogin(Extension),
        Plan::Logout("dn-logout"),
        Plan::LocalLogin,
        Plan::LocalLogout,
        Plan::UnknownUser,
        Plan::WrongPin,
        Plan::SharedExtension,
        Plan::PhoneDisabled,
        Plan::PhoneOccupied,
        Plan::PoolDry,
        Plan::OldHome(Uid),
        Plan::OldHome(Extension),
        Plan::NoCommonVersion,
        Plan::PeerDown,
        Plan::PeerBack,
        Plan::OwedLogout,
        Plan::Untrusted,
        Plan::TrustedAgain,
    ])
}

/// Carries one step out. Whatever goes wrong is in the step.
pub async fn carry_out(lab: &mut Lab, plan: Plan) -> Step {
    let began = Instant::now();
    let outcome = match plan {
        Plan::RemoteLogin(login_type) => remote_login(lab, plan, login_type).await,
        Plan::Logout(_) | Plan::LocalLogout => logout(lab, plan).await,
        Plan::LocalLogin => local_login(lab, plan).await,
        Plan::UnknownUser => unknown_user(lab, plan).await,
        Plan::WrongPin => wrong_pin(lab, plan).await,
        Plan::SharedExtension => shared_extension(lab, plan).await,
        Plan::PhoneDisabled => phone_disabled(lab, plan).await,
        Plan::PhoneOccupied => phone_occupied(lab, plan).await,
        Plan::PoolDry => pool_dry(lab, plan).await,
        Plan::OldHome(login_type) => old_home(lab, plan, login_type).await,
        Plan::NoCommonVersion => no_common_version(lab, plan).await,
        Plan::PeerDown => peer_down(lab, plan).await,
        Plan::PeerBack => peer_back(lab, plan).await,
        Plan::OwedLogout => owed_logout(lab, plan).await,
        Plan::Untrusted => untrusted(lab, plan).await,
        Plan::TrustedAgain => trusted_again(lab, plan).await,
    };
    outcome.unwrap_or_else(|error| {
        Step::done(plan.name(), began.elapsed()).failed(format!("{error:#}"))
    })
}

/// Home is the first cluster, visiting the second; with one cluster both are the same.
pub(super) const HOME: usize = 0;
const VISITING: usize = 1;

pub(super) fn visiting(lab: &Lab) -> Result<&Cluster> {
    lab.cluster(VISITING.min(lab.clusters.len().saturating_sub(1)))
}

fn typed(user: &super::dataset::User, login_type: LoginType) -> Result<&str> {
    match login_type {
        LoginType::Uid => Ok(&user.user_id),
        LoginType::SelfService => user
            .self_service_id
            .as_deref()
            .context("the user has no self-service ID"),
        LoginType::Extension => user
            .primary_extension
            .as_deref()
            .context("the user has no extension"),
    }
}

/// User `user` of home on phone `phone` of visiting.
async fn log_in(lab: &Lab, user: usize, phone: usize, login_type: LoginType) -> Result<Shown> {
    let (home, visiting) = (lab.cluster(HOME)?, visiting(lab)?);
    let user = home.data.user(user)?;
    let device = &visiting.data.phone(phone)?.name;
    Ok(visiting
        .member()?
        .phone()?
        .login(
            device,
            Some(login_type),
            typed(user, login_type)?,
            &user.pin,
        )
        .await?)
}

async fn log_out(lab: &Lab, phone: usize) -> Result<Shown> {
    let visiting = visiting(lab)?;
    Ok(visiting
        .member()?
        .phone()?
        .logout(&visiting.data.phone(phone)?.name)
        .await?)
}

/// The step with what was expected, and what both clusters hold now.
async fn judge(lab: &Lab, plan: Plan, shown: &Shown, expected: Option<u16>) -> Result<Step> {
    let mut step = Step::shown(plan.name(), shown);
    if shown.em_code != expected {
        let expected =
            expected.map_or_else(|| "success".to_owned(), |code| format!("EM code {code}"));
        step = step.failed(format!("expected {expected}"));
    }
    step.notes.extend(holdings(lab).await?);
    Ok(step)
}

async fn remote_login(lab: &Lab, plan: Plan, login_type: LoginType) -> Result<Step> {
    let shown = log_in(lab, 0, 0, login_type).await?;
    let step = judge(lab, plan, &shown, None).await?;
    agree(lab, step, Expected::Remote(1)).await
}

async fn logout(lab: &Lab, plan: Plan) -> Result<Step> {
    let shown = log_out(lab, 0).await?;
    let step = judge(lab, plan, &shown, None).await?;
    agree(lab, step, Expected::Nothing).await
}

async fn local_login(lab: &Lab, plan: Plan) -> Result<Step> {
    let cluster = visiting(lab)?;
    let (user, device) = (cluster.data.user(0)?, &cluster.data.phone(0)?.name);
    let shown = cluster
        .member()?
        .phone()?
        .login(device, None, &user.user_id, &user.pin)
        .await?;
    let step = judge(lab, plan, &shown, None).await?;
    agree(lab, step, Expected::Local).await
}

async fn unknown_user(lab: &Lab, plan: Plan) -> Result<Step> {
    let cluster = visiting(lab)?;
    let device = &cluster.data.phone(0)?.name;
    let shown = cluster
        .member()?
        .phone()?
        .login(device, None, "nobody.at.all", "135790")
        .await?;
    let step = judge(lab, plan, &shown, Some(23)).await?;
    agree(lab, step, Expected::Nothing).await
}

async fn wrong_pin(lab: &Lab, plan: Plan) -> Result<Step> {
    let (home, cluster) = (lab.cluster(HOME)?, visiting(lab)?);
    let (user, device) = (home.data.user(1)?, &cluster.data.phone(0)?.name);
    // One digit more than the right one has.
    let wrong = format!("{}0", user.pin);
    let shown = cluster
        .member()?
        .phone()?
        .login(device, None, &user.user_id, &wrong)
        .await?;
    let step = judge(lab, plan, &shown, Some(2)).await?;
    agree(lab, step, Expected::Nothing).await
}

async fn shared_extension(lab: &Lab, plan: Plan) -> Result<Step> {
    let (home, cluster) = (lab.cluster(HOME)?, visiting(lab)?);
    let user = home
        .data
        .shared_extension()
        .context("no two users share an extension")?;
    let device = &cluster.data.phone(0)?.name;
    let name = typed(user, LoginType::Extension)?;
    let phone = cluster.member()?.phone()?;
    let shown = phone
        .login(device, Some(LoginType::Extension), name, &user.pin)
        .await?;
    let step = judge(lab, plan, &shown, Some(47)).await?;
    agree(lab, step, Expected::Nothing).await
}

async fn phone_disabled(lab: &Lab, plan: Plan) -> Result<Step> {
    let (home, cluster) = (lab.cluster(HOME)?, visiting(lab)?);
    let user = home.data.user(0)?;
    let device = cluster
        .data
        .devices
        .iter()
        .find(|d| !d.em_enabled)
        .context("no phone of the data has Extension Mobility off")?;
    let shown = cluster
        .member()?
        .phone()?
        .login(&device.name, None, &user.user_id, &user.pin)
        .await?;
    let step = judge(lab, plan, &shown, Some(22)).await?;
    agree(lab, step, Expected::Nothing).await
}

async fn phone_occupied(lab: &Lab, plan: Plan) -> Result<Step> {
    let first = log_in(lab, 0, 0, LoginType::Uid).await?;
    ensure!(
        first.em_code.is_none(),
        "the first login showed {}",
        first.headline()
    );
    // A second phone user who still has the form open: the submission alone, as a script sends it.
    let (home, cluster) = (lab.cluster(HOME)?, visiting(lab)?);
    let (user, device) = (home.data.user(1)?, &cluster.data.phone(0)?.name);
    let phone = cluster.member()?.phone()?;
    let shown = phone
        .login_at_once(device, Some(LoginType::Uid), &user.user_id, &user.pin)
        .await?;
    let step = judge(lab, plan, &shown, Some(18)).await?;
    let step = agree(lab, step, Expected::Remote(1)).await?;
    log_out(lab, 0).await?;
    agree(lab, step, Expected::Nothing).await
}

async fn pool_dry(lab: &Lab, plan: Plan) -> Result<Step> {
    let size = lab.cluster(HOME)?.data.base_devices;
    for taken in 0..size {
        let shown = log_in(lab, taken, taken, LoginType::Uid).await?;
        ensure!(
            shown.em_code.is_none(),
            "login {} of {size} showed {}",
            taken + 1,
            shown.headline()
        );
    }
    let shown = log_in(lab, size, size, LoginType::Uid).await?;
    let step = judge(lab, plan, &shown, Some(33)).await?;
    let step = agree(lab, step, Expected::Remote(size)).await?;
    for taken in 0..size {
        log_out(lab, taken).await?;
    }
    agree(lab, step, Expected::Nothing).await
}

/// Restarts every node of home with other versions, and waits until visiting sees it so.
async fn restart_home(lab: &mut Lab, versions: &Versions) -> Result<()> {
    let home = lab.cluster_mut(HOME)?;
    for member in &mut home.members {
        member.stop().await;
        member.start(versions).await?;
    }
    Ok(())
}

async fn wait_linked(lab: &Lab) -> Result<()> {
    let (home, visiting) = (lab.cluster(HOME)?.id.clone(), visiting(lab)?.id.clone());
    lab.cluster(VISITING)?.wait_linked(&home).await?;
    lab.cluster(HOME)?.wait_linked(&visiting).await
}

async fn old_home(lab: &mut Lab, plan: Plan, login_type: LoginType) -> Result<Step> {
    let home: ClusterId = lab.cluster(HOME)?.id.clone();
    restart_home(lab, &Versions::up_to(Version::V1_0)).await?;
    visiting(lab)?
        .wait_status(&home, "linked at version 1.0", |peer| {
            peer.outbound
                .as_ref()
                .is_some_and(|o| o.state == "up" && o.version.as_deref() == Some("1.0"))
        })
        .await?;
    let shown = log_in(lab, 0, 0, login_type).await?;
    let expected = (login_type != LoginType::Uid).then_some(1);
    let mut step = judge(lab, plan, &shown, expected).await?;
    if expected.is_none() {
        step = agree(lab, step, Expected::Remote(1)).await?;
        log_out(lab, 0).await?;
    }
    agree(lab, step, Expected::Nothing).await
}

async fn no_common_version(lab: &mut Lab, plan: Plan) -> Result<Step> {
    restart_home(lab, &Versions::up_to(Version::V1_0)).await?;
    for member in &mut lab.cluster_mut(VISITING)?.members {
        member.stop().await;
        member.start(&Versions::from(Version::V1_1)).await?;
    }
    let (home_id, visiting_id) = (lab.cluster(HOME)?.id.clone(), visiting(lab)?.id.clone());
    let incompatible = |p: &pb::PeerStatus| {
        p.outbound
            .as_ref()
            .is_some_and(|o| o.state == "incompatible")
    };
    let seen = visiting(lab)?
        .wait_status(&home_id, "incompatible", incompatible)
        .await?;
    let told = lab
        .cluster(HOME)?
        .wait_status(&visiting_id, "incompatible", incompatible)
        .await?;
    let shown = log_in(lab, 0, 0, LoginType::Uid).await?;
    let mut step = judge(lab, plan, &shown, Some(1)).await?;
    step = reason(step, &visiting(lab)?.id, &seen);
    step = reason(step, &lab.cluster(HOME)?.id, &told);
    step = agree(lab, step, Expected::Nothing).await?;
    for member in &mut lab.cluster_mut(VISITING)?.members {
        member.stop().await;
        member.start(&Versions::default()).await?;
    }
    restart_home(lab, &Versions::default()).await?;
    wait_linked(lab).await?;
    Ok(step)
}

async fn peer_down(lab: &mut Lab, plan: Plan) -> Result<Step> {
    for member in &mut lab.cluster_mut(HOME)?.members {
        member.stop().await;
    }
    let shown = log_in(lab, 0, 0, LoginType::Uid).await?;
    let mut step = judge(lab, plan, &shown, Some(208)).await?;
    if shown.em_code == Some(40) {
        // Silence and refusal are both the truth about a peer that is going down.
        step.ok = true;
        step.notes.retain(|note| !note.starts_with("expected"));
    }
    let home = lab.cluster(HOME)?.id.clone();
    let seen = visiting(lab)?.wait_status(&home, "down", |p| {
        p.outbound.as_ref().is_some_and(|o| o.state != "up")
    });
    let seen = seen.await?;
    step = reason(step, &visiting(lab)?.id, &seen);
    agree(lab, step, Expected::Nothing).await
}

async fn peer_back(lab: &mut Lab, plan: Plan) -> Result<Step> {
    for member in &mut lab.cluster_mut(HOME)?.members {
        member.start(&Versions::default()).await?;
    }
    let began = Instant::now();
    wait_linked(lab).await?;
    let healed = began.elapsed();
    let shown = log_in(lab, 0, 0, LoginType::Uid).await?;
    let mut step = judge(lab, plan, &shown, None).await?;
    step.notes.insert(
        0,
        format!(
            "linked in both directions {} ms after the start",
            healed.as_millis()
        ),
    );
    if healed > HEALED {
        step = step.failed(format!("the link took longer than {HEALED:?}"));
    }
    step = agree(lab, step, Expected::Remote(1)).await?;
    log_out(lab, 0).await?;
    agree(lab, step, Expected::Nothing).await
}

async fn owed_logout(lab: &mut Lab, plan: Plan) -> Result<Step> {
    let shown = log_in(lab, 0, 0, LoginType::Uid).await?;
    ensure!(
        shown.em_code.is_none(),
        "the login showed {}",
        shown.headline()
    );
    for member in &mut lab.cluster_mut(HOME)?.members {
        member.stop().await;
    }
    let shown = log_out(lab, 0).await?;
    let mut step = judge(lab, plan, &shown, None).await?;
    let (home, owing) = (lab.cluster(HOME)?.id.clone(), visiting(lab)?.id.clone());
    let owed = visiting(lab)?.admin().await?.owed().await?;
    if owed.len() != 1 {
        step = step.failed(format!("{owing} owes {} ends, expected 1", owed.len()));
    }
    step.notes.push(format!(
        "{owing} owes {home} the end of {}; {home} is started again",
        counted(owed.len())
    ));
    for member in &mut lab.cluster_mut(HOME)?.members {
        member.start(&Versions::default()).await?;
    }
    wait_linked(lab).await?;
    step = agree(lab, step, Expected::Nothing).await?;
    step.notes.extend(holdings(lab).await?);
    nothing_owed(lab, step).await
}

fn counted(sessions: usize) -> String {
    match sessions {
        1 => "one session".to_owned(),
        more => format!("{more} sessions"),
    }
}

/// A healed peer is usable within this.
const HEALED: Duration = Duration::from_secs(2);

async fn untrusted(lab: &mut Lab, plan: Plan) -> Result<Step> {
    let (home_id, visiting_id) = (lab.cluster(HOME)?.id.clone(), visiting(lab)?.id.clone());
    let home = lab.cluster_mut(HOME)?;
    for member in &mut home.members {
        let other = home.authority.sign(&home.authority.request(&member.name))?;
        for (from, to) in [
            (&member.federation_certificate, "kept.pem"),
            (&member.federation_key, "kept.key"),
        ] {
            std::fs::copy(from, member.folder.join(to))?;
        }
        member.install(&other)?;
        // A swap of the files alone would leave the living connections as they are.
        member.stop().await;
        member.start(&Versions::default()).await?;
    }
    let rejected = |p: &pb::PeerStatus| p.outbound.as_ref().is_some_and(|o| o.rejection.is_some());
    let seen = visiting(lab)?
        .wait_status(&home_id, "refused for its certificate", rejected)
        .await?;
    let shown = log_in(lab, 0, 0, LoginType::Uid).await?;
    let mut step = judge(lab, plan, &shown, Some(208)).await?;
    step = reason(step, &visiting(lab)?.id, &seen);
    step = refused_as(step, &visiting(lab)?.id, &seen, Rejection::UnknownIssuer);
    // The other direction: home's own calls are turned away at visiting's door, and home is told why.
    let told = lab
        .cluster(HOME)?
        .wait_status(&visiting_id, "told the reason", rejected)
        .await?;
    step = reason(step, &lab.cluster(HOME)?.id, &told);
    step = refused_as(
        step,
        &lab.cluster(HOME)?.id,
        &told,
        Rejection::UnknownIssuer,
    );
    agree(lab, step, Expected::Nothing).await
}

async fn trusted_again(lab: &mut Lab, plan: Plan) -> Result<Step> {
    let home = lab.cluster(HOME)?;
    for member in &home.members {
        for (from, to) in [
            ("kept.key", &member.federation_key),
            ("kept.pem", &member.federation_certificate),
        ] {
            std::fs::rename(member.folder.join(from), to)?;
        }
        member
            .admin()
            .await?
            .reload(pb::ReloadIdentitiesRequest {})
            .await?;
    }
    wait_linked(lab).await?;
    let shown = log_in(lab, 0, 0, LoginType::Uid).await?;
    let mut step = judge(lab, plan, &shown, None).await?;
    step = agree(lab, step, Expected::Remote(1)).await?;
    log_out(lab, 0).await?;
    agree(lab, step, Expected::Nothing).await
}
