//! A lab with a victim: attempts that are cut off at a point, and what must hold afterwards.

use super::*;

/// The lab, who is killed, and where users and phones live. For a local login both clusters are one.
pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) home: usize,
    pub(super) visiting: usize,
    pub(super) victim: usize,
}

/// The user and the phone of every attempt that is cut off; the others are there to see what it leaves behind.
const CUT: usize = 0;
const SECOND: usize = 1;
/// Logged in before anybody is killed, on the phone of the same number: it must outlive everything.
pub(super) const OLD: usize = 2;

impl Stage {
    pub(super) async fn set(clusters: usize, home: usize, visiting: usize, victim: usize) -> Self {
        let settings = vec![
            (
                "login".to_owned(),
                format!("deadline = \"{}ms\"", DEADLINE.as_millis()),
            ),
            ("login".to_owned(), "find-deadline = \"3s\"".to_owned()),
        ];
        let hosting = Hosting::Processes { binary: binary() };
        let lab = Lab::start(&Spec {
            clusters,
            hosting,
            settings,
            ..Spec::default()
        })
        .await
        .unwrap();
        let stage = Self {
            lab,
            home,
            visiting,
            victim,
        };
        assert_eq!(stage.log_in(OLD, OLD).await.unwrap().em_code, None);
        stage
    }

    pub(super) fn phone(&self) -> Phone {
        self.lab.clusters[self.visiting]
            .member()
            .unwrap()
            .phone()
            .unwrap()
    }

    pub(super) fn device(&self, phone: usize) -> &str {
        &self.lab.clusters[self.visiting]
            .data
            .phone(phone)
            .unwrap()
            .name
    }

    pub(super) async fn log_in(
        &self,
        user: usize,
        phone: usize,
    ) -> Result<Shown, emccd::lab::phone::Error> {
        let user = self.lab.clusters[self.home].data.user(user).unwrap();
        self.phone()
            .login_at_once(self.device(phone), None, &user.user_id, &user.pin)
            .await
    }

    pub(super) async fn must_log_in(&self, user: usize, phone: usize, when: &str) {
        let shown = self
            .log_in(user, phone)
            .await
            .unwrap_or_else(|error| panic!("{when}: {error:?}"));
        assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    }

    pub(super) async fn must_log_out(&self, phone: usize, when: &str) {
        let shown = self
            .phone()
            .logout(self.device(phone))
            .await
            .unwrap_or_else(|e| panic!("{when}: {e:?}"));
        assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    }

    /// Who is on which phone, once both sides agree; the old session among them is checked and left out.
    pub(super) async fn agreed(&self, when: &str) -> Vec<(usize, usize)> {
        let (home, visiting) = (
            &self.lab.clusters[self.home],
            &self.lab.clusters[self.visiting],
        );
        let shared = settled(home, visiting).await;
        let number = |list: Vec<&str>, name: &str| {
            list.iter()
                .position(|n| *n == name)
                .unwrap_or_else(|| panic!("{when}: whose is {name}?"))
        };
        let users = || home.data.users.iter().map(|u| u.user_id.as_str()).collect();
        let phones = || (0..8).map(|n| self.device(n)).collect();
        let mut all: Vec<_> = shared
            .iter()
            .map(|s| (number(users(), &s.user), number(phones(), &s.device)))
            .collect();
        all.sort_unstable();
        let old = all.iter().position(|pair| *pair == (OLD, OLD));
        all.remove(old.unwrap_or_else(|| {
            panic!("{when}: what the phone was told has not survived: {all:?}")
        }));
        all
    }

    pub(super) async fn restart_victim(&mut self, versions: &Versions) {
        let member = self.lab.clusters[self.victim].member_mut().unwrap();
        if member.is_running() {
            member.kill().await.unwrap();
        }
        member.start(versions).await.unwrap();
    }

    pub(super) async fn linked(&self) {
        if self.home != self.visiting {
            let (home, visiting) = (
                &self.lab.clusters[self.home],
                &self.lab.clusters[self.visiting],
            );
            home.wait_linked(&visiting.id).await.unwrap();
            visiting.wait_linked(&home.id).await.unwrap();
        }
    }

    /// Does `act` while the victim is to stop at `point`, kills it there, and gives what the phone showed.
    pub(super) async fn cut_off(
        &mut self,
        point: &str,
        act: impl AsyncFnOnce(&Phone, &str) -> Result<Shown, emccd::lab::phone::Error>,
    ) -> Option<Shown> {
        self.restart_victim(&Versions::stopping_at(point)).await;
        self.linked().await;
        let (phone, device) = (self.phone(), self.device(CUT).to_owned());
        let member = self.lab.clusters[self.victim].member_mut().unwrap();
        let kill = async {
            member.wait_stopped_at(point, POINT_LIMIT).await.unwrap();
            member.kill().await.unwrap();
        };
        let (shown, ()) = tokio::join!(act(&phone, &device), kill);
        self.rows_of_victim().await.hold_invariants();
        assert_eq!(
            shown.is_err(),
            self.victim == self.visiting,
            "{point}: the phone hears of a home's death only"
        );
        shown.ok()
    }

    pub(super) async fn rows_of_victim(&self) -> Rows {
        rows(&self.lab.clusters[self.victim]).await
    }

    /// A login that is cut off at `point`. `stands`: visiting had made it durable, but could not say so.
    pub(super) async fn cut_login(&mut self, point: &str, stands: bool) {
        let user = self.lab.clusters[self.home].data.user(CUT).unwrap().clone();
        let act = async |phone: &Phone, device: &str| {
            phone
                .login_at_once(device, None, &user.user_id, &user.pin)
                .await
        };
        let shown = self.cut_off(point, act).await;
        if let Some(shown) = shown {
            assert!(
                matches!(shown.em_code, Some(40 | 208)),
                "{point}: {}",
                shown.text
            );
            let told = rows(&self.lab.clusters[self.visiting]).await;
            assert!(
                told.sessions.iter().all(|s| s.state != State::Pending),
                "{point}: shown before it was ended"
            );
        }
        if self.victim != self.visiting {
            // Also before home is back.
            self.next_page_shows(None, point).await;
        }
        self.restart_victim(&Versions::default()).await;
        self.next_page_shows(stands.then_some(CUT), point).await;
        self.rows_of_victim().await.hold_invariants();
        if stands {
            let elsewhere = self.log_in(CUT, SECOND).await.unwrap();
            assert_eq!(elsewhere.em_code, Some(25), "{point}: {}", elsewhere.text);
            let taken = self.log_in(SECOND, CUT).await.unwrap();
            assert_eq!(taken.em_code, Some(18), "{point}: {}", taken.text);
            assert_eq!(self.agreed(point).await, [(CUT, CUT)], "{point}");
            self.must_log_out(CUT, point).await;
        } else {
            let when = format!("{point}: the user at once on another phone");
            self.must_log_in(CUT, SECOND, &when).await;
            self.free_in_time(point).await;
            assert_eq!(
                self.agreed(point).await,
                [(CUT, SECOND), (SECOND, CUT)],
                "{point}"
            );
            for phone in [CUT, SECOND] {
                self.must_log_out(phone, point).await;
            }
        }
        self.nobody_but_the_old(point).await;
    }

    /// The page that the phone fetches next asks whether to log that user out, or else for a name and a PIN.
    async fn next_page_shows(&self, user: Option<usize>, point: &str) {
        let page = self.phone().login_form(self.device(CUT), None).await;
        let page = page.unwrap_or_else(|error| panic!("{point}: {error:?}"));
        match user {
            None => assert!(page.is_form(), "{point}: {}", page.body),
            Some(user) => {
                let name = &self.lab.clusters[self.home]
                    .data
                    .user(user)
                    .unwrap()
                    .user_id;
                let asks = page.softkey("Yes").is_some() && page.text.contains(name.as_str());
                assert!(asks, "{point}: {}", page.body);
            }
        }
    }

    /// Another user gets the phone, at the latest when the deadline of the login that was cut off has passed.
    pub(super) async fn free_in_time(&self, point: &str) {
        let what = format_args!("{point}: the phone is nobody's");
        until(DEADLINE + SWEEP_SLACK, what, async || {
            let shown = self.log_in(SECOND, CUT).await.unwrap();
            if shown.em_code.is_some() {
                assert_eq!(shown.em_code, Some(26), "{point}: {}", shown.text);
            }
            holds(shown.em_code.is_none(), shown.text)
        })
        .await;
    }

    /// A logout that is cut off at `point`.
    pub(super) async fn cut_logout(&mut self, point: &str) {
        self.must_log_in(CUT, CUT, point).await;
        let id = {
            let shared = rows(&self.lab.clusters[self.visiting]).await;
            let row = shared.sessions.iter().find(|s| {
                s.state == State::Active
                    && s.role == Role::Visiting
                    && s.device.as_str() == self.device(CUT)
            });
            row.unwrap().id
        };
        let shown = self
            .cut_off(point, async |phone: &Phone, device: &str| {
                phone.logout(device).await
            })
            .await;
        if let Some(shown) = shown {
            assert_eq!(
                shown.em_code, None,
                "{point}: home's silence is not the phone's: {}",
                shown.text
            );
        }
        self.restart_victim(&Versions::default()).await;
        self.next_page_shows(None, point).await;
        self.rows_of_victim().await.hold_invariants();
        self.must_log_in(
            CUT,
            SECOND,
            &format!("{point}: the user at once on another phone"),
        )
        .await;
        self.must_log_in(
            SECOND,
            CUT,
            &format!("{point}: another user at once on that phone"),
        )
        .await;
        assert_eq!(
            self.agreed(point).await,
            [(CUT, SECOND), (SECOND, CUT)],
            "{point}"
        );
        for (cluster, role) in [(self.home, Role::Home), (self.visiting, Role::Visiting)] {
            let after = rows(&self.lab.clusters[cluster]).await;
            let row = after
                .session(role, id)
                .unwrap_or_else(|| panic!("{point}: no tombstone at {role}"));
            // The next login may have told home first, and its list of ended sessions has no reasons. Home's counts.
            let known = matches!(
                row.end_reason,
                Some(EndReason::User | EndReason::Superseded)
            );
            assert!(row.state == State::Ended && known, "{point}: {row:?}");
        }
        for phone in [CUT, SECOND] {
            self.must_log_out(phone, point).await;
        }
        self.nobody_but_the_old(point).await;
    }

    pub(super) async fn nobody_but_the_old(&self, point: &str) {
        assert_eq!(self.agreed(point).await, [], "{point}");
        let held = rows(&self.lab.clusters[self.home]).await.held();
        assert_eq!(
            held,
            usize::from(self.home != self.visiting),
            "{point}: base devices held"
        );
    }
}
