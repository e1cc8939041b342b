variable "agent" {
  description = "Pub/Sub's own agent in the project, as IAM names it."
  type        = string
}

variable "backoff" {
  description = "The shortest time until a refused message comes again."
  type        = string
}

variable "buried_by" {
  description = "The function that takes dead letters; left out, they wait to be pulled."
  type        = object({ uri = string, service_account = string })
  default     = null
}

variable "labels" {
  type = map(string)
}

variable "name" {
  type = string
}

variable "project" {
  type = string
}

variable "publishers" {
  description = "Members that publish, by a name that is known before they are."
  type        = map(string)
}

variable "push" {
  description = "The function that takes the messages, in order."
  type        = object({ uri = string, service_account = string })
  default     = null
}

variable "retention" {
  description = "How far back the topic can be read again."
  type        = string
  default     = "604800s"
}

variable "table" {
  description = "The table of BigQuery that the messages are written to: project.dataset.table."
  type        = string
  default     = null
}
