//! Users, those who guess PINs, and operators; each keeps what was asked and what was told.

use super::*;

use emccd::{
    lab::{
        admin::Admin,
        dataset::User,
        phone::{Phone, Shown},
    },
    wire::admin as pb,
};

/// How long anybody waits for an answer. A stopped node gives none.
const PATIENCE: Duration = Duration::from_secs(6);
/// For how long, in milliseconds, a request may go on that nobody waits for: a node stands still for 20 s, and a login has
/// a deadline.
const LATE: i64 = 30_000;
/// Between two requests of one user: the machine is for the daemons.
const PAUSES: std::ops::Range<u64> = 100..700;
/// Between two guesses, and two sessions that an operator ends.
const RARELY: std::ops::Range<u64> = 1_000..4_000;

/// Users of a cluster that roam, and the phones that each has on the other side.
const USERS: usize = 3;
const PHONES_EACH: usize = 2;
/// Whose PIN is guessed, and where.
const GUESSED: usize = USERS;
const GUESSED_ON: usize = USERS * PHONES_EACH;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Login,
    Logout,
}

/// What came of it, as far as the asker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Done,
    Refused(u16),
    Nothing,
}

/// One request of a phone.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) asked: Asked,
    pub(super) device: String,
    pub(super) user: String,
    pub(super) began: i64,
    pub(super) ended: i64,
    pub(super) heard: Heard,
}

impl Attempt {
    /// Until when it may have come about: what nobody answered may lie at a node that stands still.
    pub(super) fn may_act_until(&self) -> i64 {
        match self.heard {
            Heard::Done | Heard::Refused(_) => self.ended,
            Heard::Nothing => self.ended + LATE,
        }
    }
}

/// The nodes of a cluster, as phones know them: a URL and the certificate that it is trusted by.
type Urls = Vec<(String, String)>;

fn urls(lab: &Lab, cluster: usize) -> Urls {
    let members = lab.clusters[cluster].members.iter();
    let urls = members.map(|member| {
        let pem = std::fs::read_to_string(&member.ca_file).unwrap();
        (member.addresses.phone.clone(), pem)
    });
    urls.collect()
}

/// One of `range`, in milliseconds.
async fn pause(chance: &Chance, range: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(chance.range(range))).await;
}

fn below(chance: &Chance, limit: usize) -> usize {
    usize::try_from(chance.range(0..limit as u64)).unwrap()
}

/// Sends a request to one of the nodes, and tells what came of it. Nobody there is as good as no answer: a phone would go
/// to the other node by itself.
async fn ask(
    urls: &Urls,
    chance: &Chance,
    asked: Asked,
    device: &str,
    user: &str,
    pin: &str,
) -> Attempt {
    let (url, pem) = &urls[below(chance, urls.len())];
    let began = now();
    let request = async {
        let phone = Phone::https(url, pem)?;
        match asked {
            Asked::Login => phone.login_at_once(device, None, user, pin).await,
            Asked::Logout => phone.logout(device).await,
        }
    };
    let heard = match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(Shown { em_code: None, .. })) => Heard::Done,
        Ok(Ok(Shown {
            em_code: Some(code),
            ..
        })) => Heard::Refused(code),
        Ok(Err(_)) | Err(_) => Heard::Nothing,
    };
    Attempt {
        asked,
        device: device.to_owned(),
        user: user.to_owned(),
        began,
        ended: now(),
        heard,
    }
}

/// A user of one cluster with two phones of the other.
pub(super) struct Roamer {
    pub(super) home: usize,
    pub(super) visiting: usize,
    pub(super) user: User,
    pub(super) devices: Vec<String>,
    pub(super) attempts: Vec<Attempt>,
    urls: Urls,
    chance: Chance,
    /// The phone that the user is on, as far as the user knows.
    on: Option<usize>,
}

impl Roamer {
    pub(super) fn all(lab: &Lab, chance: &Chance) -> Vec<Self> {
        let users = [(0, 1), (1, 0)]
            .into_iter()
            .flat_map(|(home, visiting)| (0..USERS).map(move |user| (home, visiting, user)));
        users
            .map(|(home, visiting, user)| {
                let phones = user * PHONES_EACH..(user + 1) * PHONES_EACH;
                let data = &lab.clusters[visiting].data;
                Self {
                    home,
                    visiting,
                    user: lab.clusters[home].data.user(user).unwrap().clone(),
                    devices: phones
                        .map(|p| data.phone(p).unwrap().name.clone())
                        .collect(),
                    attempts: Vec::new(),
                    urls: urls(lab, visiting),
                    chance: chance.fork(&format!("user {user} of {home}")),
                    on: None,
                }
            })
            .collect()
    }

    /// Logs in and out, at times twice or on the wrong phone.
    pub(super) async fn roam(&mut self, until: Instant) {
        while Instant::now() < until {
            let any = below(&self.chance, PHONES_EACH);
            let (asked, phone) = match (self.on, self.chance.range(0..100)) {
                (Some(on), 0..60) => (Asked::Logout, on),
                (Some(on), 60..85) => (Asked::Login, (on + 1) % PHONES_EACH),
                (Some(on), _) => (Asked::Login, on),
                (None, 0..80) => (Asked::Login, any),
                (None, _) => (Asked::Logout, any),
            };
            let attempt = ask(
                &self.urls,
                &self.chance,
                asked,
                &self.devices[phone],
                &self.user.user_id,
                &self.user.pin,
            )
            .await;
            match (asked, attempt.heard) {
                (Asked::Login, Heard::Done) => self.on = Some(phone),
                (Asked::Logout, Heard::Done) => self.on = None,
                // Whoever can't know tries anything.
                (_, Heard::Nothing) => self.on = None,
                (_, Heard::Refused(_)) => {}
            }
            self.attempts.push(attempt);
            pause(&self.chance, PAUSES).await;
        }
    }
}

/// Somebody who types wrong PINs for a user who does nothing else.
pub(super) struct Guesser {
    pub(super) attempts: Vec<Attempt>,
    user: User,
    device: String,
    urls: Urls,
    chance: Chance,
}

impl Guesser {
    pub(super) fn all(lab: &Lab, chance: &Chance) -> Vec<Self> {
        let each = |(home, visiting): (usize, usize)| Self {
            attempts: Vec::new(),
            user: lab.clusters[home].data.user(GUESSED).unwrap().clone(),
            device: lab.clusters[visiting]
                .data
                .phone(GUESSED_ON)
                .unwrap()
                .name
                .clone(),
            urls: urls(lab, visiting),
            chance: chance.fork(&format!("guesser of {home}")),
        };
        [(0, 1), (1, 0)].map(each).into()
    }

    pub(super) async fn guess(&mut self, until: Instant) {
        while Instant::now() < until {
            let wrong = format!("{}0", self.user.pin);
            let (asked, user) = (Asked::Login, &self.user.user_id);
            let attempt = ask(&self.urls, &self.chance, asked, &self.device, user, &wrong);
            self.attempts.push(attempt.await);
            pause(&self.chance, RARELY).await;
        }
    }
}

/// A session that an operator wanted to end, and whether that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) is_acknowledged: bool,
}

/// An operator of one cluster, at whichever of its nodes.
pub(super) struct Operator {
    pub(super) ended: Vec<Ended>,
    sockets: Vec<std::path::PathBuf>,
    chance: Chance,
}

impl Operator {
    pub(super) fn all(lab: &Lab, chance: &Chance) -> Vec<Self> {
        let each = |cluster: &emccd::lab::Cluster| Self {
            ended: Vec::new(),
            sockets: cluster
                .members
                .iter()
                .map(|m| m.addresses.admin.clone())
                .collect(),
            chance: chance.fork(&format!("operator of {}", cluster.id)),
        };
        lab.clusters.iter().map(each).collect()
    }

    /// Ends sessions of either role.
    pub(super) async fn work(&mut self, until: Instant) {
        while Instant::now() < until {
            let socket = &self.sockets[below(&self.chance, self.sockets.len())];
            let (draw, ended) = (self.chance.u64(), &mut self.ended);
            let one = async {
                let mut admin = Admin::connect(socket).await.ok()?;
                let living = admin.living().await.ok()?;
                let which = usize::try_from(draw).unwrap().checked_rem(living.len())?;
                let id = living[which].id.clone();
                ended.push(Ended {
                    id: id.clone(),
                    is_acknowledged: false,
                });
                let which = Some(pb::logout_session_request::Which::Id(id));
                let request = pb::LogoutSessionRequest { which };
                admin.logout(request).await.ok()
            };
            if let Ok(Some(_)) = tokio::time::timeout(PATIENCE, one).await
                && let Some(last) = self.ended.last_mut()
            {
                last.is_acknowledged = true;
            }
            pause(&self.chance, RARELY).await;
        }
    }
}
