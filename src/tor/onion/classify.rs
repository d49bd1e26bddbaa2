//! Classifies what was observed of a call to tor-hsclient as one [`Failure`].
//!
//! A call fetches the service's descriptor from one directory after another, and then goes through
//! pairs of introduction and rendezvous points. The rules here weigh all errors of the call as a set.
//! They follow proposal 304 and tor(1), `ExtendedErrors`.
//!
//! This module imports nothing but [`Failure`]: it knows neither the types of the Tor crates nor
//! where the observations come from.

use crate::failure::Failure;

/// Why one directory returned no usable descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchError {
    /// The directory did not answer in time.
    TimedOut,
    /// No circuit to the directory could be built, or the circuit broke.
    Unreachable,
    /// The directory was not tried: the Tor client has not chosen its vanguards yet.
    NotReady,
    /// The directory answered with status 404.
    NotFound,
    /// The directory answered with another error status, for instance because it is overloaded.
    Refused,
    /// The descriptor is damaged, wrongly signed, or cannot be decrypted or parsed.
    Invalid,
    /// The descriptor is valid but lists no introduction points.
    NoIntroductionPoints,
    /// The descriptor is encrypted for authorized clients, and the client has no key.
    AuthMissing,
    /// The descriptor is encrypted for authorized clients, and the client's key does not fit.
    AuthWrong,
    /// The local clock differs from the directory's.
    ClockSkewed,
    /// A bug in the Tor crates.
    Bug,
}

/// Why one pair of introduction and rendezvous points failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RendezvousError {
    /// The descriptor's entry for the introduction point is unusable.
    IntroductionPointUnusable,
    /// No circuit to any rendezvous point could be built.
    NoRendezvousCircuit,
    /// The rendezvous point refused, or did not answer in time.
    NotEstablished,
    /// No circuit to the introduction point could be built, or the circuit broke before the
    /// introduction was acknowledged.
    IntroductionBroken,
    /// The introduction point answered that it does not know the service.
    ///
    /// The answer is the same if the service limits the rate of introductions (C tor's
    /// `HiddenServiceEnableIntroDoSDefense`).
    IntroductionRefused {
        /// Index of the introduction point in the descriptor.
        point: usize,
    },
    /// The introduction point was not reached, or did not answer, in time.
    IntroductionTimedOut,
    /// The introduction was acknowledged, but the rendezvous failed or timed out.
    NotCompleted,
    /// A bug in the Tor crates.
    Bug,
}

impl RendezvousError {
    /// Whether no introduction was attempted, for lack of a rendezvous point.
    fn is_before_introduction(self) -> bool {
        matches!(
            self,
            RendezvousError::NoRendezvousCircuit | RendezvousError::NotEstablished
        )
    }
}

/// The step that a call is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CallStage {
    /// No work has begun: tor-hsclient may still have an open circuit.
    #[default]
    NotStarted,
    /// Looking for a descriptor, in the cache first.
    Descriptor,
    /// Requesting the descriptor from a directory.
    Fetching,
    /// Establishing a rendezvous point.
    Rendezvous,
    /// Solving the proof-of-work puzzle of a service under attack.
    Puzzle,
    /// Connecting to an introduction point and sending it the introduction.
    Introduction,
    /// The introduction was acknowledged; waiting for the service at the rendezvous point.
    Acknowledged,
}

/// Everything observed of one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observations {
    pub(crate) stage: CallStage,
    /// The furthest stage that the call has reached.
    pub(crate) furthest: CallStage,
    /// The introduction point in use, by its index in the descriptor.
    pub(crate) point: Option<usize>,
    /// Whether the descriptor was requested from a directory.
    pub(crate) fetched: bool,
    pub(crate) fetch_errors: Vec<FetchError>,
    pub(crate) rendezvous_errors: Vec<RendezvousError>,
    /// How many of `rendezvous_errors` belong to introduction points of an older descriptor.
    outdated: usize,
    /// Whether every introduction point was tried and refused.
    refused_by_all: bool,
    /// How the earlier call failed, or would fail now; its descriptor may have been another.
    pub(crate) earlier_failure: Option<Failure>,
}

impl Observations {
    /// Returns empty observations of a call that follows one with `earlier_failure`.
    pub(crate) fn after(earlier_failure: Option<Failure>) -> Observations {
        Observations {
            earlier_failure,
            ..Observations::default()
        }
    }

    /// Records that a stage has begun.
    pub(crate) fn enter(&mut self, stage: CallStage) {
        self.stage = stage;
        self.furthest = self.furthest.max(stage);
        self.fetched |= stage == CallStage::Fetching;
        if stage == CallStage::Descriptor {
            // Another descriptor may list other points.
            self.outdated = self.rendezvous_errors.len();
            self.refused_by_all = false;
        }
        if stage == CallStage::Rendezvous {
            // tor-hsclient chooses the introduction point after the rendezvous point.
            self.point = None;
        }
    }

    /// Records that the call has chosen an introduction point.
    pub(crate) fn select_point(&mut self, point: usize) {
        // tor-hsclient tries the points in a fixed order, and then again from the first. If it
        // returns to a point that has refused, and all pairs since were refused too, then every
        // point has refused.
        let refusal = RendezvousError::IntroductionRefused { point };
        let is_second_turn = self.latest_refusals().any(|error| *error == refusal);
        self.refused_by_all |= is_second_turn;
        self.point = Some(point);
    }

    /// Records that a pair of introduction and rendezvous points has failed.
    pub(crate) fn record_rendezvous_error(&mut self, error: RendezvousError) {
        // The same rule as in `select_point`, in case the selection was missed.
        let is_second_turn = self.latest_refusals().any(|earlier| *earlier == error);
        self.refused_by_all = is_second_turn;
        self.rendezvous_errors.push(error);
    }

    /// Whether no directory was tried because the Tor client has not chosen its vanguards yet.
    pub(crate) fn is_client_unready(&self) -> bool {
        let was_tried = |error: &FetchError| *error != FetchError::NotReady;
        self.rendezvous_errors.is_empty()
            && !self.fetch_errors.is_empty()
            && !self.fetch_errors.iter().any(was_tried)
    }

    /// Whether all pairs with the current descriptor were refused by introduction points.
    pub(crate) fn has_only_refusals(&self) -> bool {
        let pairs = self.rendezvous_errors.len() - self.outdated;
        pairs > 0 && self.latest_refusals().count() == pairs
    }

    /// The latest errors with the current descriptor, newest first, up to the first that is not a
    /// refusal.
    pub(crate) fn latest_refusals(&self) -> impl Iterator<Item = &RendezvousError> {
        let refused =
            |error: &&RendezvousError| matches!(error, RendezvousError::IntroductionRefused { .. });
        let of_this_descriptor = self.rendezvous_errors.iter().skip(self.outdated);
        of_this_descriptor.rev().take_while(refused)
    }

    /// The failure, if no further fetch or pair of this call can change it.
    ///
    /// One descriptor that cannot be decrypted is proof: all directories hold the same descriptor.
    pub(crate) fn proven_failure(&self) -> Option<Failure> {
        let has = |error| self.fetch_errors.contains(&error);
        if has(FetchError::AuthWrong) {
            Some(Failure::ClientAuthWrong)
        } else if has(FetchError::AuthMissing) {
            Some(Failure::ClientAuthMissing)
        } else if self.refused_by_all {
            Some(Failure::IntroductionFailed)
        } else {
            None
        }
    }

    /// The failure to report if the time is up now: the current stage counts as timed out.
    pub(crate) fn failure_so_far(&self) -> Failure {
        self.combine_with_earlier(self.classify_this_call())
    }

    /// Returns the failure of this call, or that of the earlier call if it is more informative.
    ///
    /// If this call got less far, it does not disprove what the earlier call observed.
    pub(crate) fn combine_with_earlier(&self, failure: Failure) -> Failure {
        let errors = &self.rendezvous_errors;
        let observed_nothing = errors.is_empty() && self.furthest < CallStage::Acknowledged;
        let introduced_nowhere = errors.iter().all(|error| error.is_before_introduction());
        match self.earlier_failure {
            Some(earlier)
                if failure == Failure::RendezvousFailed
                    && introduced_nowhere
                    && self.furthest < CallStage::Introduction =>
            {
                earlier
            }
            Some(earlier) if self.furthest < CallStage::Introduction || observed_nothing => {
                more_informative(earlier, failure)
            }
            _ => failure,
        }
    }

    /// Returns the failure of this call, or that of its introductions if it ended because the
    /// descriptor could not be fetched again: that does not disprove what the introduction points
    /// of the previous descriptor answered.
    pub(crate) fn combine_with_rendezvous_errors(&self, failure: Failure) -> Failure {
        match failure {
            Failure::DirectoriesUnreachable | Failure::DirectoriesTimedOut
                if !self.rendezvous_errors.is_empty() =>
            {
                more_informative(failure, classify_rendezvous_errors(&self.rendezvous_errors))
            }
            _ => failure,
        }
    }

    fn classify_this_call(&self) -> Failure {
        if let Some(failure) = self.proven_failure() {
            return failure;
        }
        let mut errors = self.rendezvous_errors.clone();
        match self.stage {
            CallStage::NotStarted | CallStage::Descriptor | CallStage::Fetching => {
                // Errors at the points of an older descriptor say more than a slow directory.
                if !errors.is_empty() {
                    return classify_rendezvous_errors(&errors);
                }
                let mut fetch_errors = self.fetch_errors.clone();
                fetch_errors.push(FetchError::TimedOut);
                return classify_fetch_errors(&fetch_errors);
            }
            // No introduction was ever attempted, so no introduction point is to blame.
            CallStage::Rendezvous
                if !errors.is_empty()
                    && errors.iter().all(|error| error.is_before_introduction()) => {}
            CallStage::Rendezvous | CallStage::Puzzle | CallStage::Introduction => {
                errors.push(RendezvousError::IntroductionTimedOut);
            }
            CallStage::Acknowledged => errors.push(RendezvousError::NotCompleted),
        }
        classify_rendezvous_errors(&errors)
    }
}

/// Returns the failure that says more about the service, or `one` if both say as much.
pub(crate) fn more_informative(one: Failure, other: Failure) -> Failure {
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

/// Classifies a set of failed descriptor fetches.
pub(crate) fn classify_fetch_errors(errors: &[FetchError]) -> Failure {
    let any = |error| errors.contains(&error);
    let all = |error| !errors.is_empty() && errors.iter().all(|e| *e == error);
    if any(FetchError::AuthWrong) {
        Failure::ClientAuthWrong
    } else if any(FetchError::AuthMissing) {
        Failure::ClientAuthMissing
    } else if any(FetchError::NoIntroductionPoints) {
        Failure::IntroductionFailed
    } else if any(FetchError::Invalid) {
        // Even if others answered 404: one directory has the descriptor, and it is invalid.
        Failure::DescriptorInvalid
    } else if any(FetchError::NotFound) {
        Failure::DescriptorNotFound
    } else if any(FetchError::ClockSkewed) {
        Failure::ClockSkewed
    } else if all(FetchError::TimedOut) {
        Failure::DirectoriesTimedOut
    } else if all(FetchError::Bug) {
        Failure::Internal
    } else {
        Failure::DirectoriesUnreachable
    }
}

/// Classifies a set of failed introductions and rendezvous by the furthest step that was reached.
pub(crate) fn classify_rendezvous_errors(errors: &[RendezvousError]) -> Failure {
    use RendezvousError as R;
    let mut all_points_timed_out = true;
    let mut any_point_tried = false;
    let mut any_point_unusable = false;
    let mut not_established = false;
    let mut no_circuit = false;
    for error in errors {
        match error {
            R::NotCompleted => return Failure::RendezvousFailed,
            R::IntroductionTimedOut => any_point_tried = true,
            R::IntroductionBroken | R::IntroductionRefused { .. } => {
                any_point_tried = true;
                all_points_timed_out = false;
            }
            R::IntroductionPointUnusable => any_point_unusable = true,
            R::NotEstablished => not_established = true,
            R::NoRendezvousCircuit => no_circuit = true,
            R::Bug => {}
        }
    }
    if any_point_tried && all_points_timed_out && !any_point_unusable {
        Failure::IntroductionTimedOut
    } else if any_point_tried || any_point_unusable {
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
mod tests;
