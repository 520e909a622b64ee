//! The micro-batches of an update through the stages of a model: one forward, one backward (1F1B; Narayanan et al.
//! 2019, section 3.2, with a flush at the end of every update as in Narayanan et al. 2021, section 2.2). A stage has at
//! most as many micro-batches between their two passes as there are stages from it on. A worker that has the whole
//! model is one stage.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use candle_core::{Device, Error, Result, Tensor};
use safelmm_model::Decoder;
use safelmm_model::ops::record;

use crate::backward::{Batch, Loss, Options, Pass, Unread, backward, forward};
use crate::comm::CommError;
use crate::gradients::Summing;
use crate::mesh::Mesh;
use crate::parameters::Parameters;
use crate::statistics::Activations;

/// What a stage works with.
pub struct Stage<'a> {
    /// Its place.
    pub mesh: &'a Mesh,
    /// Its part of the decoder.
    pub decoder: &'a Decoder,
    /// Its parameters.
    pub parameters: &'a Parameters,
    /// How passes are made.
    pub options: Options,
}

/// What goes to the stages before and behind this one, each in a thread of its own, so that nobody waits for who is
/// still computing.
struct Neighbours {
    before: Option<Sender<Vec<f32>>>,
    behind: Option<Sender<Vec<f32>>>,
}

impl Stage<'_> {
    /// Runs the micro-batches, and returns their losses, which the last stage finds. `look` takes what the layers'
    /// states are like in the last one.
    ///
    /// # Errors
    /// Those of the decoder and of the exchange with the stages before and behind.
    pub fn run(
        &self,
        batches: &[Batch],
        sums: &mut Summing<'_>,
        look: Option<&mut Vec<Activations>>,
    ) -> Result<Vec<Loss>> {
        let pipeline = &*self.mesh.pipeline;
        thread::scope(|scope| {
            let sender = |to: usize| {
                let (queue, values) = channel::<Vec<f32>>();
                let thread = scope.spawn(move || values.into_iter().try_for_each(|values| pipeline.send(to, &values)));
                (queue, thread)
            };
            let before = (!self.mesh.is_first()).then(|| sender(pipeline.rank() - 1));
            let behind = (!self.mesh.is_last()).then(|| sender(pipeline.rank() + 1));
            let (before, sending) = before.unzip();
            let (behind, also_sending) = behind.unzip();
            let losses = self.schedule(batches, sums, look, &Neighbours { before, behind });
            for thread in [sending, also_sending].into_iter().flatten() {
                thread
                    .join()
                    .map_err(|_| Error::msg("a thread that sends to another stage panicked"))?
                    .map_err(failed)?;
            }
            losses
        })
    }

    fn schedule(
        &self,
        batches: &[Batch],
        sums: &mut Summing<'_>,
        mut look: Option<&mut Vec<Activations>>,
        neighbours: &Neighbours,
    ) -> Result<Vec<Loss>> {
        let ahead = (self.mesh.pipeline.size() - 1 - self.mesh.pipeline.rank()).min(batches.len());
        let (mut running, mut losses) = (VecDeque::new(), Vec::with_capacity(batches.len()));
        for (number, batch) in batches.iter().enumerate() {
            let look = if number + 1 == batches.len() { look.take() } else { None };
            running.push_back(self.forward(batch, look, neighbours)?);
            if number >= ahead
                && let Some(pass) = running.pop_front()
            {
                losses.push(self.backward(pass, sums, neighbours)?);
            }
        }
        while let Some(pass) = running.pop_front() {
            losses.push(self.backward(pass, sums, neighbours)?);
        }
        // Only here, once all of the update is on its way, is a device waited for.
        losses.into_iter().map(Unread::read).collect()
    }

    fn forward<'b>(
        &self,
        batch: &'b Batch,
        look: Option<&mut Vec<Activations>>,
        neighbours: &Neighbours,
    ) -> Result<Pass<'b>> {
        let entering = match self.mesh.is_first() {
            true => None,
            false => Some(self.receive(self.mesh.pipeline.rank() - 1, batch.tokens())?),
        };
        let pass = forward(self.decoder, batch, self.options, entering, look)?;
        if let Some(behind) = &neighbours.behind {
            send(behind, pass.leaving())?;
        }
        Ok(pass)
    }

    fn backward(&self, pass: Pass<'_>, sums: &mut Summing<'_>, neighbours: &Neighbours) -> Result<Option<Unread>> {
        let gradient = match self.mesh.is_last() {
            true => None,
            false => Some(self.receive(self.mesh.pipeline.rank() + 1, pass.tokens())?),
        };
        let (loss, entering) = backward(self.decoder, self.parameters, pass, self.options, gradient, sums)?;
        if let Some(before) = &neighbours.before {
            send(before, &entering)?;
        }
        sums.end();
        Ok(loss)
    }

    /// Hidden states or their gradients, [rows, hidden], from another stage.
    fn receive(&self, from: usize, rows: usize) -> Result<Tensor> {
        let hidden = self.decoder.config().hidden_size;
        let mut values = vec![0.0; rows * hidden];
        self.mesh.pipeline.recv(from, &mut values).map_err(failed)?;
        Tensor::from_vec(values, (rows, hidden), &Device::Cpu)
    }

    /// Natural log-probabilities of the targets of whole sequences, as [`Decoder::token_log_probs`] gives them, at
    /// every worker that holds a part of one copy of the model.
    ///
    /// # Errors
    /// Those of the decoder and of the exchange.
    pub fn token_log_probs(&self, sequences: &[&[u32]], targets: &[u32]) -> Result<Vec<f32>> {
        let pipeline = &*self.mesh.pipeline;
        let batch = self.decoder.batch(sequences)?;
        let mut x = match self.mesh.is_first() {
            true => unrecorded(self.decoder, || self.decoder.embed(&batch))?,
            false => self.receive(pipeline.rank() - 1, targets.len())?,
        };
        for index in self.decoder.layers() {
            x = unrecorded(self.decoder, || self.decoder.layer(index, &x, &batch))?;
        }
        let mut log_probs = vec![0.0; targets.len()];
        match self.mesh.is_last() {
            true => {
                let last = unrecorded(self.decoder, || self.decoder.last_norm(&x))?;
                log_probs = self.decoder.token_log_probs(&last, targets)?;
            }
            false => pipeline.send(pipeline.rank() + 1, &values(&x)?).map_err(failed)?,
        }
        pipeline.broadcast(pipeline.size() - 1, &mut log_probs).map_err(failed)?;
        Ok(log_probs)
    }
}

/// What nobody goes back through.
fn unrecorded(decoder: &Decoder, run: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    Ok(record(decoder.device(), run)?.0.detach())
}

fn failed(error: CommError) -> Error {
    Error::wrap(error)
}

fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

/// Where the thread has ended, its error says why.
fn send(to: &Sender<Vec<f32>>, x: &Tensor) -> Result<()> {
    let _ = to.send(values(x)?);
    Ok(())
}
