"""Evaluates copies of the inputs by recomputing the windows that they change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from captum_pse._engine.ablated_input import AblatedInput
from captum_pse._engine.ablation import Ablation, Progress
from captum_pse._engine.batches import Batches, copies_in
from captum_pse._engine.changes import Anywhere, Windowed
from captum_pse._engine.plan import Plan
from captum_pse._engine.recording import record
from captum_pse._engine.replay import Replay
from captum_pse._engine.tape import NotTraceableError, Ref, Tape
from captum_pse._engine.tracing import Traced, trace
from captum_pse._engine.windows import Boxes

#: With more copies in a pass, their values do not fit into the caches of a CPU.
MOST_COPIES = {"cpu": 32}
#: The cost of tracing, the first pass and the checks, in full passes.
PREPARATION = 4


class MismatchError(Exception):
    """The incremental scores are not those of the model; the message states where."""


class NotWorthItError(Exception):
    """Full passes are as fast; the message states why."""


def incremental_scores(
    ablation: Ablation,
    perturbations_per_eval: int | None,
    memory_limit: int,
    progress: Progress,
    *,
    always: bool,
) -> tuple[Tensor, str]:
    """The scores after each group alone is ablated, and a note on the work saved.

    One pass of each example records the unperturbed maps. Its copies read from these
    what they do not change. The pass and one or two copies of each example are checked
    against the model.

    Args:
        ablation (Ablation): The examples and their groups; at least one is wanted.
        perturbations_per_eval (int, optional): The most copies in a pass.
        memory_limit (int): Bytes that a pass may take beside the model.
        progress (Callable): Called with the number of copies done since the last call.
        always (bool): Whether to do it even if it saves nothing.

    Returns:
        *tuple*: Scores ``(N, n_groups, K)``, and a note.

    Raises:
        NotTraceableError: The model cannot be evaluated in this way.
        MismatchError: The scores are not those of the model.
        NotWorthItError: It saves nothing, and ``always`` is false.
    """
    model = ablation.forward_func
    if not isinstance(model, nn.Module):
        raise NotTraceableError(
            "forward_func is a function; torch.fx traces a torch.nn.Module, such as a "
            "Sequential around the model"
        )
    if all(x.dim() != 4 for x in ablation.inputs):
        raise NotTraceableError("no input is an image (N, C, H, W)")
    traced = trace(model)
    scores, note = ablation.unperturbed(), ""
    most = perturbations_per_eval or MOST_COPIES.get(scores.device.type, 1 << 30)
    for n, wanted in enumerate(ablation.wanted):
        groups = wanted.nonzero()[:, 0]
        if not len(groups):
            continue
        example = _Example(ablation, traced, n)
        example.check_pass()
        work = list(example.plans(groups))
        plans = [plan for _, plan in work]
        is_first, note = not note, note or _saved(plans, always)
        example.replay.keep_for(plans)
        largest = max(plans, key=lambda plan: plan.m)
        for chosen, plan in work:
            # Once, two copies in one batch: a step may mix the examples of a batch.
            example.check_copies(chosen, plan, 1 + (is_first and plan is largest))
        for chosen, plan in work:
            batches = Batches(min(most, copies_in(memory_limit, plan.bytes_per_copy)))
            for chunk, found in example.scores(chosen, plan, batches):
                scores[n, chosen[chunk].to(scores.device)] = found.to(scores)
                progress(len(found))
    return scores, note


def _saved(plans: Sequence[Plan], always: bool) -> str:
    """A note on the work that the plans of an example save.

    Raises:
        NotWorthItError: They save nothing, and ``always`` is false.
    """
    copies = sum(plan.m for plan in plans)
    dense = sum(plan.m * plan.dense_work for plan in plans)
    share = sum(plan.m * plan.work for plan in plans) / dense if dense else 1.0
    if not always and PREPARATION + copies * share > copies:
        raise NotWorthItError(
            f"windows take {share:.0%} of the multiply-adds of {copies} full passes, "
            f"and as much as {PREPARATION} passes to prepare"
        )
    return f"{share:.0%} of the multiply-adds of full passes"


class _Example:
    """One example, on which the model was run."""

    def __init__(self, ablation: Ablation, traced: Traced, n: int) -> None:
        self.ablation, self.n, self.traced = ablation, n, traced
        self.inputs = [
            AblatedInput(
                every[n : n + 1],
                baseline.expand_as(every)[n : n + 1],
                index.expand(len(every), *index.shape[1:])[n : n + 1],
                len(ablation.groups),
            )
            for every, baseline, index in zip(
                ablation.inputs,
                ablation.baselines,
                ablation.groups.index,
                strict=True,
            )
        ]
        self.replay = Replay(self.record([given.x for given in self.inputs]))

    def record(self, inputs: Sequence[Tensor], *, keep_all: bool = False) -> Tape:
        """The tape of one pass, which ends in one tensor."""
        args = _of_example(self.ablation, self.n)
        given = (*(x.clone() for x in inputs), *args)
        tape = record(self.traced, given, keep_all=keep_all)
        if not isinstance(tape.output, Ref):
            raise NotTraceableError("the model does not return one tensor")
        return tape

    def plans(self, groups: Tensor) -> Iterator[tuple[Tensor, Plan]]:
        """The groups in classes of about the same size, with a plan for each class."""
        boxes = {
            i: given.boxes(groups)
            for i, given in enumerate(self.inputs)
            if given.is_image
        }
        sides = np.stack([(b.hi - b.lo).max(axis=1) + 1 for b in boxes.values()])
        # Half an octave: a window is at most 1.4 times too large.
        classes = np.ceil(2 * np.log2(sides.max(axis=0)))
        n_others = len(self.replay.tape.inputs) - len(self.inputs)
        for of_class in np.unique(classes):
            rows = np.flatnonzero(classes == of_class)
            chosen = groups[torch.from_numpy(rows).to(groups.device)]
            changes: list[Boxes | Anywhere | None] = []
            for i, given in enumerate(self.inputs):
                if not given.changing[chosen].any():
                    changes.append(None)
                elif i in boxes:
                    changes.append(Boxes(boxes[i].lo[rows], boxes[i].hi[rows]))
                else:
                    changes.append(Anywhere())
            yield chosen, self.replay.plan([*changes, *[None] * n_others], len(rows))

    def scores(
        self, chosen: Tensor, plan: Plan, batches: Batches
    ) -> Iterator[tuple[slice, Tensor]]:
        """The K scores of the copies of a plan, batch by batch."""

        def of(chunk: slice) -> Tensor:
            scores = self.all_scores(chosen, plan, chunk)
            examples = torch.full((len(scores),), self.n, device=scores.device)
            return self.ablation.select(scores, examples)

        return batches.each(plan.m, of)

    def given(self, chosen: Tensor, plan: Plan, chunk: slice) -> dict[int, Tensor]:
        """The inputs that change in some copies: windows, or all of them."""
        found = {}
        numbers = self.replay.tape.inputs
        for number, of in zip(numbers, self.inputs, strict=False):
            match plan.changed.get(number):
                case Windowed(index=index):
                    found[number] = of.windows(index, chunk, chosen[chunk])
                case Anywhere():
                    found[number] = of.copies(chosen[chunk])
        return found

    def all_scores(self, chosen: Tensor, plan: Plan, chunk: slice) -> Tensor:
        given = self.given(chosen, plan, chunk)
        returned: Tensor = self.replay.run(plan, chunk, given)
        n = len(chosen[chunk])
        if returned.shape[:1] != (n,):
            raise MismatchError(
                f"{n} copies have scores of shape {tuple(returned.shape)}"
            )
        return returned

    def check_pass(self) -> None:
        """Compares the recorded pass of the example with the model.

        Raises:
            MismatchError: The scores differ by more than rounding.
        """
        scores = self.replay.tape.values[self.replay.tape.output.number]
        found = self.ablation.select(scores, torch.full((1,), self.n))
        known = self.ablation.before[self.n : self.n + 1]
        if not _agree(found.to(known), known, scores):
            raise MismatchError("the trace does not give the scores of the model")

    def check_copies(self, chosen: Tensor, plan: Plan, n: int) -> None:
        """Compares n copies with full passes.

        Raises:
            MismatchError: The scores differ by more than rounding.
        """
        start = max(0, (self.n + 1) * plan.m // 2 % plan.m - n)
        some = slice(start, start + n)
        found = self.all_scores(chosen, plan, some)
        for i in range(*some.indices(plan.m)):
            one = slice(i, i + 1)
            copies = tuple(given.copies(chosen[one]) for given in self.inputs)
            args = _of_example(self.ablation, self.n)
            wanted = self.ablation.run(tuple(x.clone() for x in copies), args)
            if not _agree(found[i - start : i - start + 1], wanted, wanted):
                name = self.suspect(chosen, plan, one, copies)
                raise MismatchError(
                    f"the incremental scores are not those of the model; they first "
                    f"differ at {name}"
                )

    def suspect(
        self, chosen: Tensor, plan: Plan, one: slice, copies: tuple[Tensor, ...]
    ) -> str:
        """The first node whose value differs from a pass of the graph on the copy."""
        inputs = [given.x for given in self.inputs]
        again = Replay(self.record(inputs, keep_all=True))
        wanted = self.record(copies, keep_all=True)
        last = {id(x): number for number, x in wanted.values.items()}
        given = self.given(chosen, plan, one)
        for name, number, value in again.follow(plan, one, given):
            x = wanted.values[number]
            # A tensor that was written into has only its last value.
            kept = isinstance(x, Tensor) and last[id(x)] == number
            if kept and not _agree(value, x, x):
                return name
        return "no node of the graph: it is not the graph of the model"


def _of_example(ablation: Ablation, n: int) -> tuple[object, ...]:
    """Additional arguments of one example, copied: the model may write into them."""
    n_examples = len(ablation.inputs[0])
    args = []
    for arg in ablation.additional_forward_args:
        if isinstance(arg, Tensor):
            if arg.dim() == 0 or len(arg) != n_examples:
                raise NotTraceableError(
                    f"additional_forward_args: got shape {tuple(arg.shape)}, which is "
                    f"not one row for each of {n_examples} examples"
                )
            arg = arg[n : n + 1].clone()
        args.append(arg)
    return tuple(args)


def _agree(a: Tensor, b: Tensor, scores: Tensor) -> bool:
    """Whether values differ only by rounding, relative to the spread of scores."""
    if a.shape != b.shape:
        return False
    if not scores.is_floating_point():
        return torch.equal(a, b)
    spread = float(scores.max() - scores.min()) or float(scores.abs().max()) or 1.0
    tolerance = max(1e-4, 16 * torch.finfo(scores.dtype).eps)
    if scores.dtype == torch.float64:
        tolerance = 1e-9
    if scores.is_cuda and torch.backends.cudnn.allow_tf32:
        tolerance = max(tolerance, 5e-3)
    return bool((a - b).abs().max() <= tolerance * spread)
