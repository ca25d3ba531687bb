"""GPT-2 of transformers, in any size, made from its configuration and not downloaded."""

from torch import nn


def gpt(
    layers: int = 6,
    heads: int = 6,
    width: int = 384,
    vocabulary: int = 65,
    context: int = 256,
    dropout: float = 0.0,
) -> nn.Module:
    """Make a GPT-2 with a language modelling head, whose weight is that of the embedding.

    Args:
        layers: Number of transformer blocks.
        heads: Attention heads of a block.
        width: Features of a token, a multiple of ``heads``.
        vocabulary: Number of tokens that there are.
        context: Tokens that are read at most.
        dropout: Rate of every dropout.

    Returns:
        The network; it maps tokens (n, up to context) to an output whose ``logits`` are
        (n, as many, vocabulary).

    Raises:
        ValueError: If the heads don't divide the width.
    """
    if width % heads:
        raise ValueError(f"width={width}: expected a multiple of heads={heads}")
    from transformers import GPT2Config, GPT2LMHeadModel

    last = vocabulary - 1  # where GPT-2's own vocabulary has its one special token
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=last,
        eos_token_id=last,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)
