"""Each preset, on a file of the shape that its system documents; made up, with the odd things such files have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.inputs import BY_NAME
from streams.intake.convert import Local, mapped
from streams.intake.mapper import Event, LeftOut
from streams.intake.mapping import presets
from streams.intake.recognise import recognised
from streams.intake.report import Report

if TYPE_CHECKING:
    from streams.intake.convert import Source

NOON = "2026-03-05T12:00:00"
US_NOON = "3/5/2026 12:00"
NOON_MS = 1_772_712_000_000
HOUR_MS = 3_600_000


def made(source: Source, local: Local | None = None) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The events of a file, and what was left out: where and why."""
    names = [field.name for field in BY_NAME[source.kind].fields]
    found = list(mapped(source, local or Local("Europe/Berlin")))
    events = [dict(zip(names, each.row, strict=True)) for each in found if isinstance(each, Event)]
    return events, [(each.place, each.reason) for each in found if isinstance(each, LeftOut)]


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", "utf-8-sig")
    return path


def document(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, indent=1))
    return path


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def of(path: Path, preset: str) -> Source:
    """The file is taken for one of that preset, without a word."""
    source = recognised(path)
    assert source.where == preset
    return source


def short(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Names, articles, amounts and hours after NOON of order lines."""
    return [
        (
            e["event_id"],
            e["sku"],
            e["quantity"],
            e["unit_price"],
            e["currency"],
            (e["event_time_ms"] - NOON_MS) / HOUR_MS,
        )
        for e in events
    ]


def test_shopify_orders_export(tmp_path: Path) -> None:
    path = table(
        tmp_path / "orders_export_1.csv",
        "Name,Email,Financial Status,Paid at,Fulfillment Status,Currency,Subtotal,Total,Created at,Lineitem quantity,"
        "Lineitem name,Lineitem price,Lineitem sku,Notes,Cancelled at,Source",
        "#1001,ann@example.test,paid,2026-03-05 16:00:00 +0400,fulfilled,EUR,47.00,56.29,2026-03-05 16:00:00 +0400,2,"
        'Fern Print,16.00,FERN-1,"gift, please\nwrap",,web',
        "#1001,ann@example.test,,,,,,,2026-03-05 16:00:00 +0400,1,Moss,15.00,00417,,,",
        "#1002,bob@example.test,refunded,,,EUR,25.00,25.00,2026-03-05 17:00:00 +0400,1,Mug,25.00,,,"
        "2026-03-05 18:00:00 +0400,pos",
        "#1003,eve@example.test,voided,,,EUR,9.00,9.00,2026-03-05 17:00:00 +0400,1,Cup,9.00,CUP,,,web",
        "#1004,joe@example.test,paid,,,EUR,5.00,5.00,2026-03-05 17:00:00 +0400,1,,5.00,,,,web",
    )
    events, left = made(of(path, "shopify-orders"))
    assert short(events) == [
        ("#1001/1", "FERN-1", 2, 16, "EUR", 0),
        ("#1001/2", "00417", 1, 15, "EUR", 0),
        ("#1002/1", "Mug", 1, 25, "EUR", 1),
        ("#1002/1/cancelled", "Mug", -1, 25, "EUR", 2),
    ]
    assert [event["channel"] for event in events] == ["web", "web", "pos", "pos"]
    assert left == [("line 6", "voided order"), ("line 7", "line without an article")]


def test_what_a_shopify_export_does_not_tell_is_said(tmp_path: Path) -> None:
    path = table(
        tmp_path / "orders_export_1.csv",
        "Name,Financial Status,Currency,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,"
        "Discount Amount,Cancelled at",
        "#1001,partially_refunded,EUR,2026-03-05 16:00:00 +0400,2,Fern,16.00,FERN,4.70,",
        "#1001,,,2026-03-05 16:00:00 +0400,1,Moss,15.00,,,",
        "#1002,refunded,EUR,2026-03-05 17:00:00 +0400,1,Mug,25.00,MUG,0.00,2026-03-05 18:00:00 +0400",
        "#1003,paid,EUR,2026-03-05 17:00:00 +0400,1,Mug,25.00,MUG,0.00,",
    )
    report = Report(now_ms=NOON_MS)
    assert len(list(mapped(of(path, "shopify-orders"), Local(), report))) == 5
    told = [line for line in report.lines() if line.startswith("to know (")]
    assert [line[len("to know (") :].split()[0] for line in told] == ["2", "1", "1"]
    assert [line.split(": ")[1].split()[0] for line in told] == ["lines", "orders", "lines"]


def shopify_order(**changes: object) -> dict[str, object]:
    line = {"id": 11, "sku": "FERN-1", "title": "Fern", "quantity": 2, "price": "16.00", "gift_card": False}
    return {
        "id": 820982911946154508,
        "name": "#1001",
        "test": False,
        "created_at": f"{NOON}+00:00",
        "cancelled_at": None,
        "currency": "EUR",
        "source_name": "web",
        "customer": {"id": 115310627314723954},
        "line_items": [line, line | {"id": 12, "sku": "", "title": "Mug"}, line | {"id": 13, "gift_card": True}],
        **changes,
    }


def test_shopify_orders_webhook_and_api(tmp_path: Path) -> None:
    path = document(tmp_path / "webhook.json", shopify_order())
    events, left = made(of(path, "shopify-orders-json"))
    assert short(events) == [
        ("820982911946154508/11", "FERN-1", 2, 16, "EUR", 0),
        ("820982911946154508/12", "Mug", 2, 16, "EUR", 0),
    ]
    assert (events[0]["customer_id"], events[0]["channel"]) == ("115310627314723954", "web")
    assert left == [("record 1, line_items 3", "gift card")]
    orders = [shopify_order(id=1, cancelled_at=f"{NOON}+00:00"), shopify_order(id=2, test=True)]
    path = document(tmp_path / "page.json", {"orders": orders})
    events, left = made(of(path, "shopify-orders-json"))
    assert [(event["event_id"], event["quantity"]) for event in events] == [
        ("1/11", 2), ("1/11/cancelled", -2), ("1/12", 2), ("1/12/cancelled", -2),
    ]  # fmt: skip
    assert [reason for _, reason in left] == ["gift card", "test order", "test order", "test order"]


def test_shopify_refunds_webhook(tmp_path: Path) -> None:
    line = {"id": 487817672276298627, "sku": "FERN-1", "price": "16.00"}
    refund = {
        "id": 890088186047892319,
        "order_id": 820982911946154508,
        "created_at": f"{NOON}+00:00",
        "refund_line_items": [
            {"id": 5, "line_item_id": line["id"], "quantity": 1, "line_item": line,
             "subtotal_set": {"shop_money": {"amount": "16.00", "currency_code": "EUR"}}}
        ],
        "transactions": [{"currency": "USD"}],
    }  # fmt: skip
    events, left = made(of(document(tmp_path / "refund.json", refund), "shopify-refunds-json"))
    event_id = "820982911946154508/487817672276298627/refund/5"
    assert short(events) == [(event_id, "FERN-1", -1, 16, "EUR", 0)]
    assert left == []


def test_shopify_products_are_prices_in_the_currency_that_is_said(tmp_path: Path) -> None:
    variant = {"id": 808950810, "sku": "FERN-1", "price": "19.00", "title": "Default"}
    product = {"id": 1, "handle": "fern", "title": "Fern", "updated_at": f"{NOON}Z", "variants": [variant]}
    source = of(document(tmp_path / "products.json", {"products": [product]}), "shopify-products-json")
    events, _ = made(source, Local("", "eur"))
    assert [(e["sku"], e["price"], e["currency"], e["kind"]) for e in events] == [("FERN-1", 19, "EUR", "list")]
    source = recognised(source.path)
    assert made(source)[1] == [("record 1, variants 1", "no currency")]


def test_woocommerce_orders(tmp_path: Path) -> None:
    line = {"id": 315, "name": "Woo Single #1", "product_id": 93, "quantity": 2, "sku": "WS-1", "price": 3}
    order = {
        "id": 727, "status": "processing", "currency": "EUR", "date_created": "2026-03-05T13:00:00",
        "date_created_gmt": NOON, "date_modified_gmt": "2026-03-05T14:00:00", "customer_id": 0,
        "created_via": "checkout", "line_items": [line],
    }  # fmt: skip
    orders = [order, order | {"id": 728, "status": "cancelled"}, order | {"id": 729, "status": "failed"}]
    events, left = made(of(document(tmp_path / "orders.json", orders), "woocommerce-orders-json"))
    assert short(events) == [
        ("727/315", "WS-1", 2, 3, "EUR", 0),
        ("728/315", "WS-1", 2, 3, "EUR", 0),
        ("728/315/cancelled", "WS-1", -2, 3, "EUR", 2),
    ]
    assert left == [("record 3, line_items 1", "order that was never paid")]


def test_magento_2_orders(tmp_path: Path) -> None:
    line = {
        "item_id": 7,
        "sku": "WS12-XS",
        "qty_ordered": 2,
        "qty_canceled": 0,
        "price": 24.5,
        "product_type": "configurable",
    }
    child = {"item_id": 8, "parent_item_id": 7, "sku": "WS12-XS", "qty_ordered": 2, "price": 0}
    order = {
        "entity_id": 3, "increment_id": "000000003", "state": "new", "created_at": "2026-03-05 12:00:00",
        "updated_at": "2026-03-05 13:00:00", "order_currency_code": "EUR", "items": [line, child],
    }  # fmt: skip
    gone = order | {"increment_id": "000000004", "state": "canceled", "items": [line | {"qty_canceled": 2}]}
    path = document(tmp_path / "orders.json", {"items": [order, gone], "total_count": 2})
    events, left = made(of(path, "magento2-orders-json"))
    assert short(events) == [
        ("000000003/7", "WS12-XS", 2, 24.5, "EUR", 0),
        ("000000004/7", "WS12-XS", 2, 24.5, "EUR", 0),
        ("000000004/7/cancelled", "WS12-XS", -2, 24.5, "EUR", 1),
    ]
    assert left == [("record 1, items 2", "part of another line")]
    assert short(made(of(document(tmp_path / "one.json", order), "magento2-orders-json"))[0]) == short(events)[:1]


def test_square_orders(tmp_path: Path) -> None:
    line = {
        "uid": "u1", "catalog_object_id": "BEMYCSMIJL46OCDV4KYIKXIB", "quantity": "2", "name": "Tea",
        "base_price_money": {"amount": 1650, "currency": "USD"}, "item_type": "ITEM",
    }  # fmt: skip
    order = {
        "id": "CAISENgvlJ6jLWAzERDzjyHVybY", "location_id": "057P5VYJ4A5X1", "state": "COMPLETED",
        "created_at": f"{NOON}.000Z", "line_items": [line, line | {"uid": "u2", "item_type": "GIFT_CARD"}],
    }  # fmt: skip
    yen = line | {"base_price_money": {"amount": 1650, "currency": "JPY"}}
    orders = [order, order | {"id": "B", "line_items": [yen]}, order | {"id": "C", "state": "DRAFT"}]
    events, left = made(of(document(tmp_path / "square.json", {"orders": orders}), "square-orders-json"))
    assert short(events) == [
        (f"{order['id']}/u1", line["catalog_object_id"], 2, 16.5, "USD", 0),
        ("B/u1", line["catalog_object_id"], 2, 1650, "JPY", 0),
    ]
    assert [reason for _, reason in left] == ["line without an article"] + ["order that was not placed"] * 2


def test_amazon_order_report(tmp_path: Path) -> None:
    header = (
        "amazon-order-id", "merchant-order-id", "purchase-date", "last-updated-date", "order-status",
        "fulfillment-channel", "sales-channel", "product-name", "sku", "asin", "item-status", "quantity", "currency",
        "item-price", "item-tax",
    )  # fmt: skip
    row = (
        "026-1520163-6049104", "", f"{NOON}+00:00", f"{NOON}+00:00", "Shipped", "Amazon", "Amazon.de",
        'Monitor 17" matt', "MON-17", "B00X4WHP5E", "Shipped", "2", "EUR", "259.00", "41.35",
    )  # fmt: skip
    second = (*row[:8], "CABLE", *row[9:11], "3", "EUR", "9.00", "1.44")
    cancelled = (row[0][:-1] + "5", *row[1:4], "Cancelled", *row[5:11], "0", "EUR", "", "")
    pending = (row[0][:-1] + "6", *row[1:4], "Pending", *row[5:11], "1", "", "", "")
    path = tmp_path / "51340018541.txt"
    path.write_text("\n".join("\t".join(each) for each in (header, row, second, cancelled, pending)))
    events, left = made(of(path, "amazon-orders"))
    assert short(events) == [
        ("026-1520163-6049104/1", "MON-17", 2, 129.5, "EUR", 0),
        ("026-1520163-6049104/2", "CABLE", 3, 3, "EUR", 0),
    ]
    assert left == [("line 4", "cancelled order"), ("line 5", "order without a price yet")]


def test_commercetools_messages(tmp_path: Path) -> None:
    price = {"value": {"type": "centPrecision", "currencyCode": "EUR", "centAmount": 1699, "fractionDigits": 2}}
    line = {"id": "l-1", "variant": {"id": 1, "sku": "M0E20000000E7W1"}, "quantity": 2, "price": price}
    discounted = price | {"discounted": {"value": price["value"] | {"centAmount": 999}}}
    order = {"id": "o-1", "createdAt": f"{NOON}.123Z", "origin": "Customer", "customerId": "c-1",
             "lineItems": [line, line | {"id": "l-2", "price": discounted}]}  # fmt: skip
    message = {"id": "m-1", "type": "OrderCreated", "resource": {"typeId": "order", "id": "o-1"},
               "createdAt": f"{NOON}.200Z", "order": order}  # fmt: skip
    path = lines(tmp_path / "messages.jsonl", message, {"id": "m-2", "type": "OrderStateChanged", "orderId": "o-1"})
    events, left = made(of(path, "commercetools-messages"))
    assert [each[:5] for each in short(events)] == [
        ("o-1/l-1", "M0E20000000E7W1", 2, 16.99, "EUR"),
        ("o-1/l-2", "M0E20000000E7W1", 2, 9.99, "EUR"),
    ]
    assert left == [("line 2", "message of another kind")]


def test_stripe_checkout_sessions(tmp_path: Path) -> None:
    line = {"id": "li_1", "currency": "usd", "quantity": 2, "amount_total": 3998,
            "price": {"id": "price_1", "product": "prod_1", "unit_amount": 1999}}  # fmt: skip
    session = {"id": "cs_1", "object": "checkout.session", "created": NOON_MS // 1000, "livemode": True,
               "payment_status": "paid", "customer": "cus_1",
               "line_items": {"object": "list", "data": [line]}}  # fmt: skip
    sessions = [
        session,
        session | {"id": "cs_2", "livemode": False},
        session | {"id": "cs_3", "payment_status": "unpaid"},
    ]
    path = document(tmp_path / "sessions.json", {"object": "list", "data": sessions})
    events, left = made(of(path, "stripe-checkout-json"))
    assert short(events) == [("cs_1/li_1", "prod_1", 2, 19.99, "USD", 0)]
    assert [reason for _, reason in left] == ["test session", "unpaid session"]


def test_ga4_events(tmp_path: Path) -> None:
    event = {
        "event_name": "view_item", "event_timestamp": f"{NOON_MS}000", "user_pseudo_id": "12.34",
        "event_params": [{"key": "ga_session_id", "value": {"int_value": "77"}}],
        "items": [{"item_id": "FERN-1", "item_name": "Fern"}, {"item_id": "MOSS", "item_name": "Moss"}],
    }  # fmt: skip
    path = lines(
        tmp_path / "events.jsonl",
        event,
        event | {"event_name": "add_to_cart", "items": event["items"][:1]},  # type: ignore[index]
        {"event_name": "page_view", "event_timestamp": "1", "user_pseudo_id": "1"},
    )
    events, left = made(of(path, "ga4-events"))
    assert [(e["kind"], e["sku"], e["session_id"], e["event_time_ms"]) for e in events] == [
        ("view", "FERN-1", "77", NOON_MS), ("view", "MOSS", "77", NOON_MS), ("cart", "FERN-1", "77", NOON_MS),
    ]  # fmt: skip
    assert len({e["event_id"] for e in events}) == 3
    assert left == [("line 3", "event of another kind")]


def test_segment_events(tmp_path: Path) -> None:
    event = {
        "type": "track",
        "event": "Product Viewed",
        "messageId": "m1",
        "anonymousId": "a1",
        "timestamp": f"{NOON}Z",
        "properties": {"product_id": "507f1", "sku": "G-32", "price": 18.99},
    }
    path = lines(
        tmp_path / "track.jsonl",
        event,
        event | {"messageId": "m2", "event": "Product Added", "properties": {"product_id": "507f1"}},
        event | {"messageId": "m3", "event": "Signed Up"},
    )
    events, left = made(of(path, "segment-events"))
    assert [(e["event_id"], e["kind"], e["sku"]) for e in events] == [("m1", "view", "G-32"), ("m2", "cart", "507f1")]
    assert left == [("line 3", "event of another kind")]


@pytest.mark.parametrize(
    ("preset", "header", "time"),
    [
        (
            "online-retail",
            "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
            "3/5/2026 12:00",
        ),
        ("online-retail-2", "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country", f"{NOON}"),
    ],
)
def test_online_retail(tmp_path: Path, preset: str, header: str, time: str) -> None:
    path = table(
        tmp_path / "retail.csv",
        header,
        f"536365,85123A,WHITE HANGING HEART,6,{time},2.55,17850,United Kingdom",
        f"536365,71053,WHITE METAL LANTERN,6,{time},3.39,17850,United Kingdom",
        f"C536379,85123A,WHITE HANGING HEART,-1,{time},2.55,,United Kingdom",
        f"536370,POST,POSTAGE,3,{time},18,12583,France",
        f"536589,21777,,-10,{time},0,,United Kingdom",
    )
    events, left = made(of(path, preset))
    assert short(events) == [
        ("536365/1", "85123A", 6, 2.55, "GBP", 0),
        ("536365/2", "71053", 6, 3.39, "GBP", 0),
        ("C536379/1", "85123A", -1, 2.55, "GBP", 0),
    ]
    assert left == [("line 5", "postage, fee or correction"), ("line 6", "correction of the stock")]


def test_three_columns_are_enough(tmp_path: Path) -> None:
    path = table(tmp_path / "sales.csv", "date,sku,quantity", "2026-03-05,A,2", "2026-03-05,A,2", "2026-03-06,B,1")
    events, left = made(of(path, "plain"))
    assert [(e["event_id"], e["sku"], e["quantity"], e["unit_price"], e["currency"]) for e in events] == [
        ("sales.csv/1", "A", 2, 1, "XXX"), ("sales.csv/2", "A", 2, 1, "XXX"), ("sales.csv/3", "B", 1, 1, "XXX"),
    ]  # fmt: skip
    assert left == []
    assert made(recognised(path), Local())[1] == [(f"line {n}", "event_time_ms cannot be read") for n in (2, 3, 4)]
    path = table(tmp_path / "priced.csv", "Date;SKU;Quantity;Price;Currency", "2026-03-05T12:00:00Z;A;2;3.5;eur")
    assert [each[1:] for each in short(made(of(path, "plain"))[0])] == [("A", 2, 3.5, "EUR", 0)]


def test_our_own_order_lines_written_by_another_program(tmp_path: Path) -> None:
    path = table(
        tmp_path / "orders.csv",
        "Event_Id; Order_Id; SKU; Quantity; Unit_Price; Currency; Event_Time_Ms",
        f"e1;o1;A;2;3.5;EUR;{NOON_MS}",
    )
    assert short(made(of(path, "skutrend"))[0]) == [("e1", "A", 2, 3.5, "EUR", 0)]


def test_every_preset_has_its_test_here() -> None:
    tests = Path(__file__).read_text("utf-8")
    assert [name for name in presets() if f'"{name}"' not in tests] == []
