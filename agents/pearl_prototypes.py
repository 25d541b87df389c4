"""PEARL's alternative head: what is known of the task snaps to the nearest prototype of a task met in training.

The encoder turns each transition into a vector; the direction of their sum is the context's embedding, and a task's
prototype is a moving average of its embeddings. A contrastive loss alone trains the encoder, so that what z means does
not move with the critics (as in FOCAL, Li et al. 2021, arXiv:2010.01112); actor and critics only ever see prototypes.
Its pairs are a batch of the task's context, which is of its last trial, and one of its trials before that: contexts of
one trial would also share how the robot happened to move, and the encoder could tell trials apart instead of tasks.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from metarl.agents.configs import PearlConfig
from metarl.agents.pearl_policy import PearlPolicy
from metarl.core.info import PolicyInfo
from metarl.rl.prototypes import contrastive_loss, direction, moved, nearest
from metarl.rl.replay import TaskReplay


class PrototypePolicy(PearlPolicy):
    """z is a prototype: any of them, evenly, to explore with, then the nearest to the context's embedding.

    That is posterior sampling with the training tasks as prior, where the posterior is all at its likeliest task.
    """

    outputs_per_dimension = 1
    loss_name = "contrastive"
    loss_weight = 1.0
    prototypes: Tensor
    """(S, Z), of length √Z; one per slot of the learner's buffers."""
    known: Tensor
    """(S,) bool: slots that have a prototype."""

    def __init__(self, config: PearlConfig, info: PolicyInfo) -> None:
        super().__init__(config, info)
        self.register_buffer("prototypes", torch.zeros(config.num_slots, config.latent_size))
        self.register_buffer("known", torch.zeros(config.num_slots, dtype=torch.bool))

    def factors(self, context: Float[Tensor, "*B I"]) -> tuple[Float[Tensor, "*B Z"], Float[Tensor, "*B Z"]]:
        """Gaussians of unit variance about each transition's vector: their product is about the mean vector."""
        vector = self.encoder(context)
        return vector, torch.ones_like(vector)

    def draw_prior(self, noise: Float32[Tensor, "N Z"]) -> Float[Tensor, "N Z"]:
        """Any prototype, all equally likely; before there is one, any direction."""
        places = self.prototypes[self.known]
        if not len(places):
            return direction(noise)
        share = torch.special.ndtr(noise[:, 0])  # uniform in [0, 1]
        return places[(share * len(places)).long().clamp(max=len(places) - 1)]

    def draw(
        self, weighted: Float[Tensor, "N Z"], precision: Float[Tensor, "N Z"], prior: Float[Tensor, "N Z"]
    ) -> Float[Tensor, "N Z"]:
        """The prototype nearest to the embedding."""
        places = self.prototypes[self.known]
        return places[nearest(self.place(weighted, precision), places)] if len(places) else prior

    def place(self, weighted: Float[Tensor, "*B Z"], precision: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B Z"]:
        """The embedding: where the sum of the vectors points."""
        return direction(weighted)

    def landmarks(self, context: TaskReplay) -> tuple[Int64[Tensor, "P"], Float32[Tensor, "P Z"]]:
        """The prototypes."""
        return self.known.nonzero()[:, 0], self.prototypes[self.known]

    def draw_for(
        self, slots: Int64[Tensor, "*K M"], context: Float32[Tensor, "*K M C W"], replay: TaskReplay, g: torch.Generator
    ) -> Float32[Tensor, "*K M C I"]:
        """As many transitions as the context of each task has, of the trials before its last."""
        return replay.sample(slots, context.shape[-2], g, earlier=True)[..., : self.context_width]

    def learn(
        self, slots: Int64[Tensor, "M"], context: Float32[Tensor, "M C I"], drawn: Float32[Tensor, "M C I"]
    ) -> tuple[Float32[Tensor, "M Z"], Float32[Tensor, ""]]:
        """Move the tasks' prototypes; these are z, without gradient. The loss is the contrastive one."""
        embedding, support = (self.place(*(part.sum(dim=1) for part in self.factors(x))) for x in (context, drawn))
        rate, temperature = self.config.prototype_rate, self.config.contrastive_temperature
        prototypes = moved(self.prototypes, self.known, slots, embedding.detach(), rate)
        sound = torch.isfinite(prototypes).all()
        self.prototypes.copy_(torch.where(sound, prototypes, self.prototypes))
        self.known.copy_(torch.where(sound, self.known.index_fill(0, slots, True), self.known))
        return self.prototypes[slots], contrastive_loss(embedding, support, slots, temperature)

    def forget(self, slots: Int64[Tensor, "n"]) -> None:
        """These slots have no prototype any more."""
        self.known.index_fill_(0, slots, False)
