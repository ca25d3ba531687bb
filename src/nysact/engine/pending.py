"""Which calls of a layer its gradient came through."""

from nysact.engine.statistics import BatchStatistics, CallStatistics
from nysact.torch_private import backward_id, backward_retains_graph


class PendingStatistics:
    """The calls of one layer between their forward and the step.

    A call counts if and only if the gradient in ``weight.grad`` at the step came through it. The
    methods are the transitions of a call's life::

        captured   a forward ran; the call's autograd graph alone keeps its statistics alive
        arrived    a backward pass reached the call's output
        set aside  that pass added to ``weight.grad``: the batch's sums hold the call
        committed  a step used the gradient: the running statistics hold the call
        discarded  the gradient was reset, or the graph was freed before a backward pass

    A graph that was retained keeps its calls, so a later backward pass can set them aside again.
    """

    def __init__(self, batch: BatchStatistics, index: int, *, was_called: bool = False) -> None:
        self.batch = batch  # the sums of the calls that were set aside, for all layers of a group
        self.index = index  # this layer's index there
        self.was_called = was_called  # whether a call was ever captured
        self.begin_step()

    def begin_step(self) -> None:
        """Forget all calls; those that a retained graph holds may arrive again."""
        self.has_calls = False  # whether calls are set aside
        self.has_gradient = False  # whether a backward pass reached the weight
        self.samples = 0  # of the calls since the last step
        self._set_aside = 0  # samples of those that were set aside
        self._arrived: dict[int, list[CallStatistics]] = {}
        self._received: set[int] = set()
        self._unhooked: list[CallStatistics] = []

    def capture_unhooked(self, call: CallStatistics) -> None:
        """Take a call whose output no hook can watch; the next backward pass sets it aside."""
        self._unhooked.append(call)

    def arrive(self, call: CallStatistics) -> bool:
        """A backward pass reached the call's output: whether its statistics are still of use."""
        if not self.batch.capturing or call.generation != self.batch.generation:
            return False
        # What waits was copied on the stream of the forward, which this hook runs on too.
        self.batch.queue.flush()
        call.measure()  # The queue dropped it if a step came between.
        calls = self._arrived.setdefault(backward_id(), [])
        if not any(each is call for each in calls):
            calls.append(call)
        return True

    def receive(self, *, reset: bool) -> None:
        """The weight's gradient of this backward pass is complete, and about to be accumulated."""
        self._received.add(backward_id())
        if reset and self.has_calls:
            # The model's own zero_grad can't be observed; its effect shows here.
            self._drop_set_aside()

    def set_aside(self, *, every_pass: bool = False) -> None:
        """The gradient was accumulated: add the calls it came through to the batch's sums."""
        passes = list(self._arrived) if every_pass else [backward_id()]
        calls = [call for each in passes for call in self._arrived.pop(each, [])]
        self._add(calls + self._unhooked)
        self._unhooked.clear()
        if not backward_retains_graph():
            for call in calls:
                call.sums.clear()

    def _add(self, calls: list[CallStatistics]) -> None:
        self.batch.queue.flush()
        for call in calls:
            self.batch.add(self.index, call)
            self._set_aside += call.samples
            self.has_calls |= bool(call.rows)

    def discard(self) -> None:
        """The gradient was reset: drop the calls that it came through, and no others."""
        self._arrived.clear()
        self._received.clear()
        self._drop_set_aside()

    def _drop_set_aside(self) -> None:
        if self.has_calls:
            self.batch.clear(self.index)
        self.samples, self._set_aside = self.samples - self._set_aside, 0
        self.has_calls = self.has_gradient = False

    def adopt(self, *, sharded: bool) -> None:
        """Set aside the calls of gradients that a sharded weight or the user's code accumulated."""
        if sharded and self.has_gradient:
            self.set_aside(every_pass=True)
        elif not self.has_gradient:
            # autograd.grad gave these gradients, and the user assigned them.
            self._add([call for each in self._received for call in self._arrived.pop(each, [])])
