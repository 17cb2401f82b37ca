"""Personal data leaves the text, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import without_ray

from deployments.engines.null import NullEngine
from deployments.pipeline.types import TextInput
from deployments.privacy.redact import Redactor
from deployments.settings import PersonalData, RedactionSettings, Settings
from deployments.tokenizer import Tokenizer

ALL: list[PersonalData] = ["email", "id_card", "credit_card", "iban", "phone", "ip"]

pytest.importorskip("phonenumbers", reason="pip install -e '.[redaction]'")
pytest.importorskip("stdnum", reason="pip install -e '.[redaction]'")


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor(RedactionSettings(kinds=ALL))


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("我的邮箱是zhang.san+a@mail.example.com，谢谢", "我的邮箱是<EMAIL>，谢谢"),
        ("写信到a@b.cn或c@d.org", "写信到<EMAIL>或<EMAIL>"),
        ("邮箱ｚｓ＠ｅｘａｍｐｌｅ．ｃｏｍ", "邮箱<EMAIL>"),
        ("打电话13812345678给他", "打电话<PHONE>给他"),
        ("打电话１３８１２３４５６７８给他", "打电话<PHONE>给他"),
        ("电话138-1234-5678，或者+86 138 1234 5678", "电话<PHONE>，或者<PHONE>"),
        ("座机010-62345678", "座机<PHONE>"),
        ("call me on +44 20 7946 0958 today", "call me on <PHONE> today"),
        ("身份证11010519491231002X，请查", "身份证<ID_CARD>，请查"),
        ("身份证号码440308199901101512好", "身份证号码<ID_CARD>好"),
        ("卡号4111111111111111已扣款", "卡号<CREDIT_CARD>已扣款"),
        ("卡号4111 1111 1111 1111已扣款", "卡号<CREDIT_CARD>已扣款"),
        ("IBAN GB82 WEST 1234 5698 7654 32 bitte", "IBAN <IBAN> bitte"),
        ("账户DE89370400440532013000。", "账户<IBAN>。"),
        ("服务器192.168.1.17挂了", "服务器<IP>挂了"),
        ("地址2001:db8::8a2e:370:7334不通", "地址<IP>不通"),
        ("a@b.cn 13812345678 192.168.0.1", "<EMAIL> <PHONE> <IP>"),
        ("card 4111 1111 1111 1111 123", "card <CREDIT_CARD> 123"),
        ("card 4111-1111-1111-1111 12/27", "card <CREDIT_CARD> 12/27"),
        ("5 4111111111111111", "5 <CREDIT_CARD>"),
        ("4111 1111 1111 1111 5500 0000 0000 0004", "<CREDIT_CARD> <CREDIT_CARD>"),
        ("IP:192.168.1.10", "IP:<IP>"),
        ("IP：192.168.1.10，端口22", "IP：<IP>，端口22"),
        ("http://192.168.1.10:8080/x", "http://<IP>:8080/x"),
        ("BE68539007547034 BIC GEBABEBB", "<IBAN> BIC GEBABEBB"),
        ("AB12 BE68 5390 0754 7034 BANK CODE", "AB12 <IBAN> BANK CODE"),
        ("卡号٤١١١١١١١١١١١١١١١", "卡号<CREDIT_CARD>"),
    ],
)
def test_it_is_replaced_by_its_kind(redactor: Redactor, text: str, redacted: str) -> None:
    assert redactor.redact(text) == (redacted, redacted.count("<"))


@pytest.mark.parametrize(
    "text",
    [
        "质量很好，会再来",
        "身份证110105194912310021，末位不对",  # wrong check digit
        "卡号4111111111111112",  # Luhn does not hold
        "4111 1111 1111 1112 123",
        "1.2.3.4.5",
        "版本1.2.3，时间12:30:45",
        "IP 999.1.1.1",
        "2024年12月31日买的，花了199.99元，满300减40",
        "DE00370400440532013000",
        "@所有人 3@4",
        "双11买了3件，10:30发货",
        "std::vector",
    ],
)
def test_what_is_none_stays(redactor: Redactor, text: str) -> None:
    assert redactor.redact(text) == (text, 0)


def test_only_the_kinds_asked_for() -> None:
    only = Redactor(RedactionSettings(kinds=["email"]))
    assert only.redact("a@b.cn 13812345678") == ("<EMAIL> 13812345678", 1)


def test_another_country() -> None:
    german = Redactor(RedactionSettings(kinds=["phone"], phone_region="DE"))
    assert german.redact("Tel. 030 901820") == ("Tel. <PHONE>", 1)
    egyptian = Redactor(RedactionSettings(kinds=["phone"], phone_region="EG"))
    assert egyptian.redact("اتصل بي ٠١٠٠١٢٣٤٥٦٧") == ("اتصل بي <PHONE>", 1)


def test_a_long_text_of_digits_does_not_take_long(redactor: Redactor) -> None:
    """Patterns that try again from every place would need hours for these."""
    for text in (
        "1" * 100_000,
        "1 " * 50_000,
        "a" * 100_000 + "1",
        "1:" * 50_000,
        "1." * 50_000,
        "a.1@" * 25_000,
        "41 11-" * 15_000,
        "AB12 " * 20_000,
        "AB12CDEF3456 " * 8_000,
    ):
        redactor.redact(text)


@pytest.mark.anyio
async def test_the_model_reads_what_is_left_and_the_answer_says_how_much_was_cut(
    demo_model: Path,
) -> None:
    settings: dict[str, Any] = {"model": {"id": str(demo_model)}}
    asked: list[int] = []

    def predict(batch: Any, *_: Any) -> Any:
        asked.extend(batch.lengths.tolist())
        return NullEngine().predict(batch)

    def replica(**more: Any) -> Tokenizer:
        whole = Settings.model_validate(settings | more)
        return without_ray.tokenizer(whole, predict)

    texts = ["打13812345678给我", "很好"]
    off = replica()
    await off._chain.loading
    assert all("redacted" not in answer for answer in await off.classify(texts))
    on = replica(redaction={"kinds": ["phone"]})
    await on._chain.loading
    assert [answer["redacted"] for answer in await on.classify(texts)] == [1, 0]
    expected, _ = on._chain._models.encode(
        [TextInput("打<PHONE>给我"), TextInput("很好")]
    ).batch.lengths
    assert asked[-2] == expected
