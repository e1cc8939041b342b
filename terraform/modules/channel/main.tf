# A topic, its only subscription, which has the topic's name and never expires, and, for what nobody could take, a
# dead-letter topic with a subscription of its own.

resource "google_pubsub_topic" "this" {
  #checkov:skip=CKV_GCP_83:Google's own keys encrypt it; whoever has to hold the keys sets an organisation policy
  project                    = var.project
  name                       = var.name
  labels                     = var.labels
  message_retention_duration = var.retention
}

resource "google_pubsub_topic_iam_member" "publishes" {
  for_each = var.publishers
  project  = var.project
  topic    = google_pubsub_topic.this.name
  role     = "roles/pubsub.publisher"
  member   = each.value
}

resource "google_pubsub_subscription" "this" {
  project                      = var.project
  name                         = var.name
  topic                        = google_pubsub_topic.this.name
  labels                       = var.labels
  ack_deadline_seconds         = 600
  enable_message_ordering      = var.push != null
  message_retention_duration   = var.retention
  enable_exactly_once_delivery = false

  dynamic "push_config" {
    for_each = var.push[*]
    content {
      push_endpoint = push_config.value.uri
      oidc_token {
        service_account_email = push_config.value.service_account
        audience              = push_config.value.uri
      }
    }
  }

  dynamic "bigquery_config" {
    for_each = var.table[*]
    content {
      table               = bigquery_config.value
      use_table_schema    = true
      drop_unknown_fields = false
    }
  }

  # The engine counts attempts: an outage ends in no dead letter.
  dead_letter_policy {
    dead_letter_topic     = "projects/${var.project}/topics/${google_pubsub_topic.dead.name}"
    max_delivery_attempts = 100
  }
  retry_policy {
    minimum_backoff = var.backoff
    maximum_backoff = "600s"
  }
  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic" "dead" {
  #checkov:skip=CKV_GCP_83:Google's own keys encrypt it; whoever has to hold the keys sets an organisation policy
  project                    = var.project
  name                       = "${var.name}-dead"
  labels                     = var.labels
  message_retention_duration = var.retention
}

resource "google_pubsub_subscription" "dead" {
  project                    = var.project
  name                       = google_pubsub_topic.dead.name
  topic                      = google_pubsub_topic.dead.name
  labels                     = var.labels
  ack_deadline_seconds       = 600
  enable_message_ordering    = true
  message_retention_duration = "2678400s" # the longest that there is, 31 days

  dynamic "push_config" {
    for_each = var.buried_by[*]
    content {
      push_endpoint = push_config.value.uri
      oidc_token {
        service_account_email = push_config.value.service_account
        audience              = push_config.value.uri
      }
    }
  }

  retry_policy {
    minimum_backoff = var.backoff
    maximum_backoff = "600s"
  }
  expiration_policy {
    ttl = ""
  }
}

# Pub/Sub's own agent moves a dead letter: it publishes there, and acknowledges here.
resource "google_pubsub_topic_iam_member" "agent" {
  project = var.project
  topic   = google_pubsub_topic.dead.name
  role    = "roles/pubsub.publisher"
  member  = var.agent
}

resource "google_pubsub_subscription_iam_member" "agent" {
  project      = var.project
  subscription = google_pubsub_subscription.this.name
  role         = "roles/pubsub.subscriber"
  member       = var.agent
}
