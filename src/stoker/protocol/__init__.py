"""Protocol v1 of the service: its messages, values, spaces and problems, for servers and for clients."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.protocol.differences import (
        Difference as Difference,
        difference as difference,
        spaces_digest as spaces_digest,
    )
    from stoker.protocol.encoding import (
        decode as decode,
        decode_hello as decode_hello,
        decode_step as decode_step,
        decode_stream as decode_stream,
        encode_json as encode_json,
        encode_msgpack as encode_msgpack,
    )
    from stoker.protocol.greeting import (
        Hello as Hello,
        HelloFrame as HelloFrame,
        Spec as Spec,
        SpecLimits as SpecLimits,
        Welcome as Welcome,
        WelcomeFrame as WelcomeFrame,
    )
    from stoker.protocol.memos import Memo as Memo, decode_memo as decode_memo, encode_memo as encode_memo
    from stoker.protocol.messages import (
        ActorAnswer as ActorAnswer,
        ActorState as ActorState,
        EpisodeAnswer as EpisodeAnswer,
        EpisodeMessage as EpisodeMessage,
        Liveness as Liveness,
        OpenEpisode as OpenEpisode,
        PongFrame as PongFrame,
        Readiness as Readiness,
        Record as Record,
        StepAnswer as StepAnswer,
        StepMessage as StepMessage,
        StreamMessage as StreamMessage,
    )
    from stoker.protocol.problems import (
        CloseCode as CloseCode,
        ErrorFrame as ErrorFrame,
        Problem as Problem,
        ProtocolError as ProtocolError,
    )
    from stoker.protocol.spaces import (
        BoxSpace as BoxSpace,
        DictSpace as DictSpace,
        DiscreteSpace as DiscreteSpace,
        MultiBinarySpace as MultiBinarySpace,
        MultiDiscreteSpace as MultiDiscreteSpace,
        Spaces as Spaces,
        TupleSpace as TupleSpace,
        describe_space as describe_space,
        space_from as space_from,
    )
    from stoker.protocol.values import SpaceCodec as SpaceCodec
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
