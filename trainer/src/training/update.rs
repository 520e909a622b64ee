//! What one update would be made of: its gradients, and the numbers that they are judged by.

use std::sync::atomic::Ordering;

use super::{TrainError, Training};
use crate::backward::{Batch, Loss, Options};
use crate::comm::all_numbers;
use crate::dataset::Cursor;
use crate::gradients::Summing;
use crate::pipeline::Stage;
use crate::statistics::{self, Own};

/// What one update found, before it is made: the same for all workers.
pub(super) struct Found {
    pub loss: f64,
    pub z_loss: f64,
    pub norm: f64,
    /// What takes the summed gradients to their mean.
    pub mean: f64,
    /// Tokens that were run.
    pub tokens: usize,
    /// Tokens that each of them attends to, in the mean.
    pub attended: f64,
    /// Whether a worker was asked to stop.
    pub stop: bool,
}

impl Training<'_> {
    /// The gradients of one update, from as many micro-batches as make its tokens; statistics of the last one where
    /// they are due.
    pub(super) fn gradients(&mut self) -> Result<Found, TrainError> {
        let (train, mesh) = (self.job.train, self.job.mesh);
        let step = self.at.step + 1;
        let error = |source| TrainError::Step { step, source };
        let options = Options { z_loss: train.z_loss, checkpointing: train.activation_checkpointing };
        let (batches, tokens, attended) = self.micro_batches()?;
        let due = train.statistics_steps > 0 && (step == 1 || step.is_multiple_of(train.statistics_steps));
        let looks = due && mesh.data.rank() + 1 == mesh.data.size();
        let mut activations = Vec::new();
        let (decoder, parameters) = (self.job.decoder, self.job.parameters);
        let stage = Stage { mesh, decoder, parameters, options };
        let passes = |sums: &mut Summing<'_>| stage.run(&batches, sums, looks.then_some(&mut activations));
        let losses = self.sums.sum(mesh, batches.len(), passes).map_err(|e| TrainError::gradients(step, e))?;
        let (sum, stop) = self.total(&losses)?;
        self.at.tokens += tokens as u64;
        let mean = 1.0 / sum.targets as f64;
        let squares = self.sums.squares(mesh).map_err(|e| TrainError::gradients(step, e))?;
        if due {
            let (buckets, first_layer) = (self.sums.buckets(), decoder.layers().start);
            let own = Own { parameters, buckets, squares: &squares, activations: &activations, first_layer };
            let layers = statistics::layers(&own, decoder.config().n_layers, mean, mesh).map_err(error)?;
            if let Some(telling) = &mut self.telling {
                telling.look(step, layers)?;
            }
        }
        let norm = self.sums.total(&squares, mesh)?.sqrt() * mean;
        let attended = attended as f64 / tokens as f64;
        Ok(Found { loss: sum.nll * mean, z_loss: sum.z_loss * mean, norm, mean, tokens, attended, stop })
    }

    /// This worker's micro-batches of the next update; the tokens of all of them, and the pairs of tokens that attend.
    fn micro_batches(&mut self) -> Result<(Vec<Batch>, usize, usize), TrainError> {
        let train = self.job.train;
        let left_out: Vec<(Cursor, Cursor)> = self.ledger.rollbacks().map(|(_, from, until)| (from, until)).collect();
        let count = train.micro_batches();
        let own = self.job.mesh.own(count);
        let (mut batches, mut tokens, mut attended) = (Vec::new(), 0, 0);
        // Everyone cuts all of them: where one begins depends on the texts of those before it.
        for number in 0..count {
            let batch = self.job.source.next(&mut self.at.data, train.micro_batch_tokens, &left_out);
            if !batch.has_targets() {
                return Err(TrainError::NoText);
            }
            tokens += batch.tokens();
            attended += batch.inputs.iter().map(|inputs| inputs.len() * (inputs.len() + 1) / 2).sum::<usize>();
            if own.contains(&number) {
                batches.push(batch);
            }
        }
        Ok((batches, tokens, attended))
    }

    /// The losses of all micro-batches, added up in their order, and whether anybody was asked to stop.
    fn total(&self, losses: &[Loss]) -> Result<(Loss, bool), TrainError> {
        let stop = f64::from(u8::from(self.job.stop.load(Ordering::Relaxed)));
        let own: Vec<f64> = [stop]
            .into_iter()
            .chain(losses.iter().flat_map(|loss| [loss.nll, loss.z_loss, loss.targets as f64]))
            .collect();
        let all = all_numbers(&*self.job.mesh.world, &own)?;
        let mut sum = Loss::default();
        let judged = self.job.mesh.judges().filter_map(|rank| all.get(rank));
        for loss in judged.flat_map(|numbers| numbers[1..].chunks_exact(3)) {
            sum.nll += loss[0];
            sum.z_loss += loss[1];
            sum.targets += loss[2] as usize;
        }
        Ok((sum, all.iter().any(|numbers| numbers[0] != 0.0)))
    }

    /// Every parameter must have a gradient at the first update: an operation without a backward would lose it
    /// silently.
    pub(super) fn check_gradients(&self) -> Result<(), TrainError> {
        let silent = |name: &str| self.job.silent_at_first.iter().any(|part| name.contains(part));
        let reached = self.sums.reached(self.job.mesh).map_err(|e| TrainError::gradients(1, e))?;
        let missing = self.job.parameters.iter().zip(reached).find(|((name, _), reached)| !reached && !silent(name));
        match missing {
            Some(((name, _), _)) => Err(TrainError::NoGradient(name.to_owned())),
            None => Ok(()),
        }
    }
}
