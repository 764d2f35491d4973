"""A model behind FastAPI as tutorials write it: pydantic for the rows, pandas for the pipeline.

MODEL=model.joblib uvicorn fastapi_app:app --workers 1

`/predict` is the usual plain function, which FastAPI runs in its threads; `/predict_async` is the
same in the event loop, which saves the hop into a thread. serving.py tries both.
"""

import os

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel, Field

model = joblib.load(os.environ["MODEL"])
app = FastAPI()


class Person(BaseModel):
    age: int
    workclass: str | None
    fnlwgt: int
    education: str
    education_num: int = Field(alias="education-num")
    marital_status: str = Field(alias="marital-status")
    occupation: str | None
    relationship: str
    race: str
    sex: str
    capital_gain: int = Field(alias="capital-gain")
    capital_loss: int = Field(alias="capital-loss")
    hours_per_week: int = Field(alias="hours-per-week")
    native_country: str | None = Field(alias="native-country")


class Request(BaseModel):
    records: list[Person]


class Answer(BaseModel):
    predictions: list[float]


def scored(request: Request) -> Answer:
    frame = pd.DataFrame([r.model_dump(by_alias=True) for r in request.records])
    return Answer(predictions=model.predict_proba(frame)[:, 1].tolist())


@app.post("/predict")
def predict(request: Request) -> Answer:
    return scored(request)


@app.post("/predict_async")
async def predict_async(request: Request) -> Answer:
    return scored(request)
