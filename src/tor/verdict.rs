//! From what happened in an attempt to the one thing to tell the client.
//!
//! An attempt fetches the service's descriptor from one directory after another, and then tries
//! pairs of introduction and rendezvous points. Each try that fails leaves a clue; the rules here
//! weigh the clues as a set. They follow proposal 304 and tor(1), `ExtendedErrors`. No type of the
//! Tor crates is known here.

use crate::failure::Failure;

/// Why one directory gave no usable descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DescriptorClue {
    /// It did not answer in time.
    TimedOut,
    /// No circuit to it, or a circuit that broke.
    Unreachable,
    /// It was not tried: the Tor client has a directory of the network, and has not chosen its vanguards yet.
    NotReady,
    /// It answered 404.
    NotFound,
    /// It answered with another refusal: overloaded, say.
    Refused,
    /// It gave a descriptor that is damaged, wrongly signed, or cannot be decrypted or read.
    Invalid,
    /// It gave a sound descriptor without introduction points.
    NoIntroductionPoints,
    /// The descriptor is encrypted for authorized clients, and we have no key.
    AuthMissing,
    /// The descriptor is encrypted for authorized clients, and our key does not fit.
    AuthWrong,
    /// Our clock does not fit the directory's.
    ClockSkewed,
    /// A bug in the crates.
    Bug,
}

/// Why one pair of introduction and rendezvous point failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RendezvousClue {
    /// The descriptor's entry for the introduction point makes no sense.
    IntroductionPointUnusable,
    /// No circuit to any rendezvous point.
    NoRendezvousCircuit,
    /// The rendezvous point did not answer in time, or refused.
    NotEstablished,
    /// No circuit to the introduction point, or it broke before the introduction was acknowledged.
    IntroductionBroken,
    /// The introduction point does not know the service (any more), or says so because the service
    /// has asked it to let no more than so many introductions through (C tor's
    /// `HiddenServiceEnableIntroDoSDefense`): the answer is the same.
    IntroductionRefused {
        /// Number of the introduction point in the descriptor.
        point: usize,
    },
    /// The introduction point was not reached, or did not answer, in time.
    IntroductionTimedOut,
    /// The introduction was acknowledged, and the rendezvous not completed: in time, at all, or
    /// with the right keys.
    NotCompleted,
    /// A bug in the crates.
    Bug,
}

impl RendezvousClue {
    /// Whether it came to no introduction, for want of a rendezvous point.
    fn is_before_introduction(self) -> bool {
        matches!(
            self,
            RendezvousClue::NoRendezvousCircuit | RendezvousClue::NotEstablished
        )
    }
}

/// The step an attempt is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Nothing was begun: there may be an open circuit.
    #[default]
    Asked,
    /// Looking for a descriptor, in the cache first.
    Descriptor,
    /// Asking a directory for it.
    Fetching,
    /// Establishing a rendezvous point.
    Rendezvous,
    /// Solving the puzzle of a service that is under attack.
    Puzzle,
    /// Reaching an introduction point and asking it to pass the introduction on.
    Introduction,
    /// The introduction was acknowledged; waiting for the service at the rendezvous point.
    Acknowledged,
}

/// Everything that has been seen of an attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) stage: Stage,
    /// The furthest step it has been in.
    pub(crate) furthest: Stage,
    /// The introduction point that it uses, by its place in the descriptor.
    pub(crate) point: Option<usize>,
    /// Whether a directory was asked for the descriptor.
    pub(crate) fetched: bool,
    pub(crate) descriptor: Vec<DescriptorClue>,
    pub(crate) rendezvous: Vec<RendezvousClue>,
    /// How many of them belong to introduction points of an older descriptor.
    outdated: usize,
    /// Whether every introduction point was tried, and each has refused.
    refused_by_all: bool,
    /// What the round before found, or has found so far; its descriptor may have been another.
    pub(crate) earlier: Option<Failure>,
}

impl Findings {
    /// Nothing yet, but what the round before found.
    pub(crate) fn after(earlier: Option<Failure>) -> Findings {
        Findings {
            earlier,
            ..Findings::default()
        }
    }

    /// Notes that a step has begun.
    pub(crate) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.furthest = self.furthest.max(stage);
        self.fetched |= stage == Stage::Fetching;
        if stage == Stage::Descriptor {
            // Another descriptor may name other points.
            self.outdated = self.rendezvous.len();
            self.refused_by_all = false;
        }
        if stage == Stage::Rendezvous {
            // The point is chosen afterwards.
            self.point = None;
        }
    }

    /// Notes that it turns to an introduction point.
    pub(crate) fn turn_to(&mut self, point: usize) {
        // The points are tried in turn, and then again from the first: once it comes to one that has
        // refused, and none has done anything else in between, all have been asked.
        let refusal = RendezvousClue::IntroductionRefused { point };
        let again = self.refusals().any(|c| *c == refusal);
        self.refused_by_all |= again;
        self.point = Some(point);
    }

    /// Notes that a pair of introduction and rendezvous point has failed.
    pub(crate) fn note(&mut self, clue: RendezvousClue) {
        // The same as when it turned to that point, should that have been missed.
        let again = self.refusals().any(|c| *c == clue);
        self.refused_by_all = again;
        self.rendezvous.push(clue);
    }

    /// Whether no directory was tried, for want of vanguards.
    pub(crate) fn was_not_ready(&self) -> bool {
        let ready = |clue: &DescriptorClue| *clue != DescriptorClue::NotReady;
        self.rendezvous.is_empty()
            && !self.descriptor.is_empty()
            && !self.descriptor.iter().any(ready)
    }

    /// Whether the descriptor's introduction points have done nothing but refuse.
    pub(crate) fn refused_only(&self) -> bool {
        let tries = self.rendezvous.len() - self.outdated;
        tries > 0 && self.refusals().count() == tries
    }

    /// The refusals of the descriptor's introduction points since anything else has happened, the last one first.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = &RendezvousClue> {
        let refused = |c: &&RendezvousClue| matches!(c, RendezvousClue::IntroductionRefused { .. });
        let of_this_descriptor = self.rendezvous.iter().skip(self.outdated);
        of_this_descriptor.rev().take_while(refused)
    }

    /// The outcome, once nothing that would still be tried can change it.
    ///
    /// One descriptor that cannot be decrypted is proof enough: all directories hold the same.
    pub(crate) fn conclusion(&self) -> Option<Failure> {
        use DescriptorClue as D;
        let seen = |clue| self.descriptor.contains(&clue);
        if seen(D::AuthWrong) {
            Some(Failure::ClientAuthWrong)
        } else if seen(D::AuthMissing) {
            Some(Failure::ClientAuthMissing)
        } else if self.refused_by_all {
            Some(Failure::IntroductionFailed)
        } else {
            None
        }
    }

    /// What to say when the time is up: the step that is under way counts as one that timed out.
    pub(crate) fn verdict_so_far(&self) -> Failure {
        self.beside_earlier(self.verdict_of_this_round())
    }

    /// The outcome of this round, unless the round before says more: that the service could not be
    /// tried again, or not yet, takes nothing from what was seen.
    pub(crate) fn beside_earlier(&self, failure: Failure) -> Failure {
        let nothing_seen = self.rendezvous.is_empty() && self.furthest < Stage::Acknowledged;
        let nobody_asked = self.rendezvous.iter().all(|c| c.is_before_introduction());
        match self.earlier {
            Some(earlier)
                if failure == Failure::RendezvousFailed
                    && nobody_asked
                    && self.furthest < Stage::Introduction =>
            {
                earlier
            }
            Some(earlier) if self.furthest < Stage::Introduction || nothing_seen => {
                more_telling(earlier, failure)
            }
            _ => failure,
        }
    }

    /// The failure of this round, unless it is that the descriptor could not be fetched once more: that takes
    /// nothing from what the introduction points of the last one said.
    pub(crate) fn beside_tries(&self, failure: Failure) -> Failure {
        match failure {
            Failure::DirectoriesUnreachable | Failure::DirectoriesTimedOut
                if !self.rendezvous.is_empty() =>
            {
                more_telling(failure, of_rendezvous(&self.rendezvous))
            }
            _ => failure,
        }
    }

    fn verdict_of_this_round(&self) -> Failure {
        if let Some(failure) = self.conclusion() {
            return failure;
        }
        let mut tries = self.rendezvous.clone();
        match self.stage {
            Stage::Asked | Stage::Descriptor | Stage::Fetching => {
                // A failure on the points of an older descriptor says more than a slow directory.
                if !tries.is_empty() {
                    return of_rendezvous(&tries);
                }
                let mut answers = self.descriptor.clone();
                answers.push(DescriptorClue::TimedOut);
                return of_descriptor(&answers);
            }
            // Nobody was ever to be introduced: no introduction point is to blame.
            Stage::Rendezvous
                if !tries.is_empty() && tries.iter().all(|c| c.is_before_introduction()) => {}
            Stage::Rendezvous | Stage::Puzzle | Stage::Introduction => {
                tries.push(RendezvousClue::IntroductionTimedOut);
            }
            Stage::Acknowledged => tries.push(RendezvousClue::NotCompleted),
        }
        of_rendezvous(&tries)
    }
}

/// Of two outcomes of the same request, the one that says more about the service.
pub(crate) fn more_telling(one: Failure, other: Failure) -> Failure {
    use Failure as F;
    let weight = |failure| match failure {
        F::ClientAuthWrong | F::ClientAuthMissing => 8,
        F::DescriptorNotFound => 7,
        F::RendezvousFailed => 6,
        F::IntroductionFailed => 5,
        F::IntroductionTimedOut => 4,
        F::DescriptorInvalid => 3,
        F::ClockSkewed => 2,
        F::DirectoriesUnreachable | F::DirectoriesTimedOut => 1,
        _ => 0,
    };
    if weight(other) > weight(one) {
        other
    } else {
        one
    }
}

/// What a set of failed descriptor fetches means.
pub(crate) fn of_descriptor(clues: &[DescriptorClue]) -> Failure {
    use DescriptorClue as D;
    let any = |clue| clues.contains(&clue);
    let all = |clue| !clues.is_empty() && clues.iter().all(|c| *c == clue);
    if any(D::AuthWrong) {
        Failure::ClientAuthWrong
    } else if any(D::AuthMissing) {
        Failure::ClientAuthMissing
    } else if any(D::NoIntroductionPoints) {
        Failure::IntroductionFailed
    } else if any(D::Invalid) {
        // Also beside a 404: one directory has the descriptor, and it is bad.
        Failure::DescriptorInvalid
    } else if any(D::NotFound) {
        Failure::DescriptorNotFound
    } else if any(D::ClockSkewed) {
        Failure::ClockSkewed
    } else if all(D::TimedOut) {
        Failure::DirectoriesTimedOut
    } else if all(D::Bug) {
        Failure::Internal
    } else {
        Failure::DirectoriesUnreachable
    }
}

/// What a set of failed introductions and rendezvous means: the furthest step tells most.
pub(crate) fn of_rendezvous(clues: &[RendezvousClue]) -> Failure {
    use RendezvousClue as R;
    let mut points_timed_out = true;
    let mut points_tried = false;
    let mut unusable = false;
    let mut not_established = false;
    let mut no_circuit = false;
    for clue in clues {
        match clue {
            R::NotCompleted => return Failure::RendezvousFailed,
            R::IntroductionTimedOut => points_tried = true,
            R::IntroductionBroken | R::IntroductionRefused { .. } => {
                points_tried = true;
                points_timed_out = false;
            }
            R::IntroductionPointUnusable => unusable = true,
            R::NotEstablished => not_established = true,
            R::NoRendezvousCircuit => no_circuit = true,
            R::Bug => {}
        }
    }
    if points_tried && points_timed_out && !unusable {
        Failure::IntroductionTimedOut
    } else if points_tried || unusable {
        Failure::IntroductionFailed
    } else if not_established {
        Failure::RendezvousFailed
    } else if no_circuit {
        Failure::NoCircuit
    } else {
        Failure::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::DescriptorClue as D;
    use super::RendezvousClue as R;
    use super::*;

    #[test]
    fn a_descriptor_that_could_not_be_fetched_again_takes_nothing_from_what_was_seen() {
        let mut findings = Findings::after(None);
        let unreachable = Failure::DirectoriesUnreachable;
        assert_eq!(findings.beside_tries(unreachable), unreachable);
        findings.rendezvous = vec![R::NoRendezvousCircuit];
        assert_eq!(findings.beside_tries(unreachable), unreachable);
        findings.rendezvous.push(R::IntroductionTimedOut);
        let timed_out = Failure::IntroductionTimedOut;
        assert_eq!(findings.beside_tries(unreachable), timed_out);
        let not_found = Failure::DescriptorNotFound;
        assert_eq!(findings.beside_tries(not_found), not_found);
    }

    #[test]
    fn descriptor_clues_are_weighed_as_a_set() {
        let cases: &[(&[D], Failure)] = &[
            (&[D::NotFound; 6], Failure::DescriptorNotFound),
            (
                &[D::TimedOut, D::NotFound, D::Unreachable],
                Failure::DescriptorNotFound,
            ),
            (&[D::Refused, D::NotFound], Failure::DescriptorNotFound),
            (&[D::NotFound, D::Refused], Failure::DescriptorNotFound),
            (&[D::Invalid; 6], Failure::DescriptorInvalid),
            (&[D::NotFound, D::Invalid], Failure::DescriptorInvalid),
            (&[D::NotFound, D::AuthMissing], Failure::ClientAuthMissing),
            (&[D::AuthMissing, D::AuthWrong], Failure::ClientAuthWrong),
            (&[D::NoIntroductionPoints], Failure::IntroductionFailed),
            (&[D::TimedOut; 3], Failure::DirectoriesTimedOut),
            (
                &[D::TimedOut, D::Unreachable],
                Failure::DirectoriesUnreachable,
            ),
            (&[D::Refused; 2], Failure::DirectoriesUnreachable),
            (&[D::ClockSkewed, D::Unreachable], Failure::ClockSkewed),
            (&[D::Bug], Failure::Internal),
            (&[], Failure::DirectoriesUnreachable),
        ];
        for (clues, expected) in cases {
            assert_eq!(of_descriptor(clues), *expected, "{clues:?}");
        }
    }

    #[test]
    fn the_furthest_step_tells_most() {
        let refused = R::IntroductionRefused { point: 0 };
        let silent = R::IntroductionTimedOut;
        let broken = R::IntroductionBroken;
        let cases: &[(&[R], Failure)] = &[
            (&[refused; 3], Failure::IntroductionFailed),
            (&[silent, silent], Failure::IntroductionTimedOut),
            (&[silent, broken], Failure::IntroductionFailed),
            (&[silent, refused], Failure::IntroductionFailed),
            (
                &[refused, R::NotCompleted, silent],
                Failure::RendezvousFailed,
            ),
            (
                &[R::NotEstablished, R::NoRendezvousCircuit],
                Failure::RendezvousFailed,
            ),
            (&[R::NotEstablished, silent], Failure::IntroductionTimedOut),
            (&[R::NoRendezvousCircuit], Failure::NoCircuit),
            (&[R::IntroductionPointUnusable], Failure::IntroductionFailed),
            (
                &[R::IntroductionPointUnusable, silent],
                Failure::IntroductionFailed,
            ),
            (&[R::Bug], Failure::Internal),
            (&[R::Bug, refused], Failure::IntroductionFailed),
        ];
        for (clues, expected) in cases {
            assert_eq!(of_rendezvous(clues), *expected, "{clues:?}");
        }
    }

    #[test]
    fn of_two_outcomes_the_one_that_says_more_counts() {
        // From what says most to what says nothing of the service; those of one line say as much.
        let order: &[&[Failure]] = &[
            &[Failure::ClientAuthWrong, Failure::ClientAuthMissing],
            &[Failure::DescriptorNotFound],
            &[Failure::RendezvousFailed],
            &[Failure::IntroductionFailed],
            &[Failure::IntroductionTimedOut],
            &[Failure::DescriptorInvalid],
            &[Failure::ClockSkewed],
            &[
                Failure::DirectoriesUnreachable,
                Failure::DirectoriesTimedOut,
            ],
            &[Failure::NoCircuit, Failure::Internal],
        ];
        for (place, says_more) in order.iter().enumerate() {
            for one in *says_more {
                for other in order[place + 1..].iter().copied().flatten() {
                    assert_eq!(more_telling(*one, *other), *one);
                    assert_eq!(more_telling(*other, *one), *one);
                }
                for equal in *says_more {
                    assert_eq!(more_telling(*one, *equal), *one, "the first stays");
                }
            }
        }
    }

    #[test]
    fn a_round_that_gets_as_far_as_the_service_outweighs_the_one_before() {
        let mut findings = Findings::after(Some(Failure::DescriptorNotFound));
        findings.enter(Stage::Acknowledged);
        assert_eq!(findings.verdict_so_far(), Failure::RendezvousFailed);
    }

    #[test]
    fn at_the_deadline_the_stage_decides() {
        let at = |stage| {
            let mut findings = Findings::default();
            findings.enter(stage);
            findings.verdict_so_far()
        };
        assert_eq!(at(Stage::Asked), Failure::DirectoriesTimedOut);
        assert_eq!(at(Stage::Fetching), Failure::DirectoriesTimedOut);
        assert_eq!(at(Stage::Rendezvous), Failure::IntroductionTimedOut);
        assert_eq!(at(Stage::Puzzle), Failure::IntroductionTimedOut);
        assert_eq!(at(Stage::Introduction), Failure::IntroductionTimedOut);
        assert_eq!(at(Stage::Acknowledged), Failure::RendezvousFailed);
    }

    #[test]
    fn at_the_deadline_earlier_clues_still_count() {
        let mut findings = Findings::default();
        findings.enter(Stage::Introduction);
        findings.note(R::IntroductionRefused { point: 0 });
        assert_eq!(findings.verdict_so_far(), Failure::IntroductionFailed);
        findings.enter(Stage::Acknowledged);
        assert_eq!(findings.verdict_so_far(), Failure::RendezvousFailed);
        findings.note(R::NotCompleted);
        findings.enter(Stage::Fetching);
        assert_eq!(findings.verdict_so_far(), Failure::RendezvousFailed);
    }

    #[test]
    fn a_second_round_that_gets_nowhere_hides_nothing() {
        let mut findings = Findings::after(Some(Failure::IntroductionFailed));
        findings.enter(Stage::Fetching);
        assert_eq!(findings.verdict_so_far(), Failure::IntroductionFailed);
        let unreachable = findings.beside_earlier(Failure::DirectoriesUnreachable);
        assert_eq!(unreachable, Failure::IntroductionFailed);
        // What the directories did say is newer.
        let gone = findings.beside_earlier(Failure::DescriptorNotFound);
        assert_eq!(gone, Failure::DescriptorNotFound);
        for stage in [Stage::Rendezvous, Stage::Introduction] {
            findings.enter(stage);
            assert_eq!(findings.verdict_so_far(), Failure::IntroductionFailed);
        }
        let mut further = findings.clone();
        further.enter(Stage::Acknowledged);
        assert_eq!(further.verdict_so_far(), Failure::RendezvousFailed);
        // The points of its descriptor are silent.
        findings.note(R::IntroductionTimedOut);
        assert_eq!(findings.verdict_so_far(), Failure::IntroductionTimedOut);
    }

    #[test]
    fn circuits_that_cannot_be_built_blame_nobody() {
        let mut findings = Findings::default();
        findings.note(R::NoRendezvousCircuit);
        findings.enter(Stage::Rendezvous);
        assert_eq!(findings.verdict_so_far(), Failure::NoCircuit);
        // Nor do rendezvous points that say nothing blame an introduction point.
        findings.rendezvous = vec![R::NotEstablished];
        assert_eq!(findings.verdict_so_far(), Failure::RendezvousFailed);
        // And they say less than what introduction points have said before.
        for earlier in [Failure::IntroductionFailed, Failure::IntroductionTimedOut] {
            findings.earlier = Some(earlier);
            assert_eq!(findings.verdict_so_far(), earlier);
        }
    }

    #[test]
    fn a_directory_that_was_not_tried_says_nothing() {
        let mut findings = Findings::default();
        assert!(!findings.was_not_ready());
        findings.descriptor = vec![D::NotReady; 6];
        assert!(findings.was_not_ready());
        assert_eq!(
            of_descriptor(&[D::NotReady]),
            Failure::DirectoriesUnreachable
        );
        findings.descriptor.push(D::TimedOut);
        assert!(!findings.was_not_ready());
    }

    #[test]
    fn an_undecryptable_descriptor_is_proof_at_once() {
        let mut findings = Findings::default();
        findings.descriptor.push(D::NotFound);
        assert_eq!(findings.conclusion(), None);
        findings.descriptor.push(D::AuthMissing);
        assert_eq!(findings.conclusion(), Some(Failure::ClientAuthMissing));
    }

    #[test]
    fn a_service_is_gone_when_every_introduction_point_has_refused() {
        let mut findings = Findings::default();
        for point in [2, 0, 1] {
            findings.note(R::IntroductionRefused { point });
            assert_eq!(findings.conclusion(), None);
        }
        findings.note(R::IntroductionRefused { point: 2 });
        assert_eq!(findings.conclusion(), Some(Failure::IntroductionFailed));
    }

    #[test]
    fn it_is_known_to_be_gone_when_the_first_point_has_its_turn_again() {
        let mut findings = Findings::default();
        for point in [2, 0, 1] {
            findings.turn_to(point);
            assert_eq!(findings.conclusion(), None);
            findings.note(R::IntroductionRefused { point });
        }
        findings.turn_to(2);
        assert_eq!(findings.conclusion(), Some(Failure::IntroductionFailed));
    }

    #[test]
    fn refusals_count_for_the_descriptor_that_named_the_points() {
        let mut findings = Findings::default();
        findings.enter(Stage::Descriptor);
        for point in [0, 1] {
            findings.turn_to(point);
            findings.note(R::IntroductionRefused { point });
        }
        findings.enter(Stage::Descriptor);
        findings.turn_to(0);
        assert_eq!(findings.conclusion(), None);
        findings.note(R::IntroductionRefused { point: 0 });
        assert_eq!(findings.conclusion(), None);
        findings.turn_to(0);
        assert_eq!(findings.conclusion(), Some(Failure::IntroductionFailed));
    }

    #[test]
    fn more_points_than_tries_may_all_have_refused() {
        let mut findings = Findings::default();
        for points in [0..6, 6..12] {
            findings.enter(Stage::Descriptor);
            assert!(!findings.refused_only());
            for point in points {
                findings.turn_to(point);
                findings.note(R::IntroductionRefused { point });
                assert_eq!(findings.conclusion(), None);
                assert!(findings.refused_only());
            }
        }
        findings.note(R::IntroductionTimedOut);
        assert!(!findings.refused_only());
    }

    #[test]
    fn a_point_that_has_its_turn_again_after_something_else_may_still_answer() {
        let mut findings = Findings::default();
        findings.note(R::IntroductionRefused { point: 0 });
        findings.note(R::IntroductionBroken);
        findings.turn_to(0);
        assert_eq!(findings.conclusion(), None);
    }

    #[test]
    fn what_was_before_the_service_went_does_not_count() {
        let mut findings = Findings::default();
        findings.note(R::NotCompleted);
        for point in [1, 2, 0] {
            findings.note(R::IntroductionRefused { point });
            assert_eq!(findings.conclusion(), None);
        }
        findings.note(R::IntroductionRefused { point: 1 });
        assert_eq!(findings.conclusion(), Some(Failure::IntroductionFailed));
    }

    #[test]
    fn a_point_that_failed_otherwise_may_still_answer() {
        let mut findings = Findings::default();
        findings.note(R::IntroductionRefused { point: 0 });
        findings.note(R::IntroductionTimedOut);
        findings.note(R::IntroductionRefused { point: 0 });
        assert_eq!(findings.conclusion(), None);
    }
}
